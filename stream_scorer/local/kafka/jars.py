"""Jars of Apache Kafka: fetched once through `jgo`, pinned by a lock file in the wheel.

The lock has the coordinates of each jar, so none of Maven's 60 descriptions (POMs) is read, and several are fetched at
once. A fetch works in a staging folder and ends with one rename, so the jars' folder is either absent or complete.
Every start hashes the jars (45 MB, 50 ms): that also detects a jar that was changed after the fetch, which a stored
result of the first check would not.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from stream_scorer.errors import LocalError, extra_command
from stream_scorer.local.files import folder_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

KAFKA_VERSION = "4.4.0"

EXTRA_MISSING = f"the embedded Kafka needs the extra [local]: {extra_command('local')}"

Progress = Callable[[str], None]

_REPORT_EVERY_S = 0.2
# Most jars are small, and each costs two round trips.
_PARALLEL = 8


@dataclass(frozen=True, slots=True)
class LockedJar:
    """Jar of this version's release: `coordinates` as ``group:artifact:version``, `sha256` in hex, `size` in bytes."""

    coordinates: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Name of its file."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


def locked_jars() -> tuple[LockedJar, ...]:
    """Return the jars of the packaged lock file."""
    text = resources.files("stream_scorer.local").joinpath("kafka-jars.lock").read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return tuple(LockedJar(coordinates, sha256, int(size)) for sha256, size, coordinates in rows)


def verified_jars(cache_dir: Path, progress: Progress, lock: tuple[LockedJar, ...] | None = None) -> list[Path]:
    """Return the jars of Kafka in class path order, after a fetch if they are not on this machine.

    Args:
        cache_dir: parent of the folder `kafka-<version>`.
        progress: called with messages a few times a second during a fetch.
        lock: the required jars; the packaged lock by default.

    Raises:
        LocalError: no network, no room or permission, the extra is missing, or a jar differs from the lock.
    """
    jars = locked_jars() if lock is None else lock
    home = cache_dir / f"kafka-{KAFKA_VERSION}"
    if not home.is_dir():
        with folder_lock(cache_dir, "fetch"):
            if not home.is_dir():  # another process may have fetched it meanwhile
                _fetch(home, jars, progress)
    check_jars(home, jars)
    return [home / jar.name for jar in jars]


def check_jars(folder: Path, lock: tuple[LockedJar, ...]) -> None:
    """Compare the checksums of jars in a folder with the lock.

    Raises:
        LocalError: a jar is missing or differs; the message names it and the remedy.
    """
    for jar in lock:
        path = folder / jar.name
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise LocalError(f"cannot read {path} ({error.strerror}): delete {folder} and start again") from error
        if sha256 != jar.sha256:
            raise LocalError(
                f"{path} is not the jar this version was released with (SHA-256 {sha256[:12]}…, expected "
                f"{jar.sha256[:12]}…): it will not be run; delete {folder} and start again"
            )


def _fetch(home: Path, lock: tuple[LockedJar, ...], progress: Progress) -> None:
    staging = home.with_name(home.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)  # of an interrupted fetch, whose last jar may be incomplete
    arrived = staging / "jars"
    try:
        arrived.mkdir(parents=True)
        for path in _download(staging, lock, _Arrivals(lock, progress)):
            path.rename(arrived / path.name)
        progress(f"checking the {len(lock)} jars of Apache Kafka")
        check_jars(arrived, lock)
        arrived.rename(home)
    except requests.RequestException as error:
        raise LocalError(_no_network(error)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise LocalError(f"cannot store the jars of Apache Kafka in {home}: {reason}") from error
    except (RuntimeError, ValueError, AssertionError, KeyError) as error:
        raise LocalError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched: jgo raised {type(error).__name__}"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _download(staging: Path, lock: tuple[LockedJar, ...], arrivals: _Arrivals) -> list[Path]:
    """Let jgo download into `staging`, several jars at once; those of the user's own Maven repository are used."""
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415  # the extra may be missing
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415
    except ImportError as error:
        raise LocalError(EXTRA_MISSING) from error
    # jgo's warnings would appear between the progress lines; their subject is checked here anyway.
    logging.getLogger("jgo").addHandler(logging.NullHandler())
    try:
        local_repositories = [GlobalSettings.load().repo_cache]
    except RuntimeError:  # a user without a home directory has no repository
        local_repositories = []
    context = MavenContext(
        resolver=PythonResolver(progress_callback=arrivals.file),
        repo_cache=staging / "repository",
        local_repos=local_repositories,
    )

    def resolve(jar: LockedJar) -> Path:
        group, artifact, version = jar.coordinates.split(":")
        found: Path = context.project(group, artifact).at_version(version).artifact().resolve()
        return _owned(found, staging)

    with ThreadPoolExecutor(_PARALLEL, "jar") as pool:
        try:
            return list(pool.map(resolve, lock))
        except BaseException:
            arrivals.cancel()
            pool.shutdown(wait=False, cancel_futures=True)  # the end of the block waits for the running ones
            raise


def _owned(path: Path, staging: Path) -> Path:
    """Return a path in `staging`: a jar of the user's repository is copied, not moved."""
    if path.is_relative_to(staging):
        return path
    return Path(shutil.copy(path, staging / path.name))


def _no_network(error: requests.RequestException) -> str:
    url = getattr(error.request, "url", None)
    host = f" from {urlsplit(url).hostname}" if url else ""
    return (
        f"Apache Kafka {KAFKA_VERSION} could not be fetched{host}: no connection ({type(error).__name__}); "
        "the first start needs the network once (a proxy goes in HTTPS_PROXY)"
    )


class _Arrivals:
    """Counter of fetched jars, with progress messages at most five times a second. Called by several threads."""

    def __init__(self, lock: tuple[LockedJar, ...], progress: Progress) -> None:
        self._lock = Lock()
        self._count = len(lock)
        self._total = sum(jar.size for jar in lock)
        self._progress = progress
        self._cancelled = False
        self._jars = 0
        self._bytes = 0
        self._reported_at = float("-inf")
        self._report_progress()

    @contextmanager
    def file(self, _name: str, _size: int) -> Iterator[Callable[[int], None]]:
        """Count one jar and its bytes."""
        yield self._add
        with self._lock:
            self._jars += 1
            self._report_progress()

    def cancel(self) -> None:
        """End the running downloads at their next bytes: after a Ctrl-C the largest jar can take a minute more."""
        self._cancelled = True

    def _add(self, count: int) -> None:
        if self._cancelled:
            raise LocalError("the fetch of Apache Kafka was cancelled")
        with self._lock:
            self._bytes += count
            if time.monotonic() - self._reported_at >= _REPORT_EVERY_S:
                self._report_progress()

    def _report_progress(self) -> None:
        self._reported_at = time.monotonic()
        jars, got, total = f"{self._jars} of {self._count} jars", self._bytes / 1e6, self._total / 1e6
        self._progress(f"fetching Apache Kafka {KAFKA_VERSION} (once): {jars}, {got:.1f} of {total:.1f} MB")
