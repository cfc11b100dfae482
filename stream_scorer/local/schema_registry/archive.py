"""Program of the schema registry: fetched once through `jgo`, and unpacked only if its checksum is the pinned one.

A fetch works in a staging folder and ends with one rename, so the program's folder is either absent or complete.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tarfile
from typing import TYPE_CHECKING, Final

import requests

from stream_scorer.errors import LocalError, extra_command
from stream_scorer.local.files import folder_lock

if TYPE_CHECKING:
    from pathlib import Path

REGISTRY_VERSION: Final = "3.3.3"
EXTRA_MISSING: Final = f"the schema registry needs the extra [local]: {extra_command('local')}"

_GROUP, _ARTIFACT = "io.apicurio", "apicurio-registry-app"
_SHA256: Final = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"


class NoNetworkError(LocalError):
    """The program is not on this machine, and the download server is not reachable."""


def registry_home(cache_dir: Path) -> Path:
    """Return the folder with ``quarkus-run.jar``, after a fetch (158 MB) if it is not on this machine.

    Raises:
        NoNetworkError: the program is not here and cannot be fetched.
        LocalError: the extra is missing, the disk is full, or the fetched file is not the pinned one.
    """
    home = cache_dir / f"apicurio-{REGISTRY_VERSION}"
    if not home.is_dir():
        with folder_lock(cache_dir, "fetch-registry"):
            if not home.is_dir():  # another process may have fetched it meanwhile
                _fetch(home)
    return home


def _fetch(home: Path) -> None:
    staging = home.with_name(home.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)  # of an interrupted fetch
    try:
        archive = _download(staging)
        _check(archive)
        with tarfile.open(archive) as tar:
            tar.extractall(staging / "program", filter="data")
        (staging / "program").rename(home)
    except requests.RequestException as error:
        raise NoNetworkError(
            f"the schema registry (Apicurio {REGISTRY_VERSION}) could not be fetched: no connection"
            f" ({type(error).__name__}); the first start needs the network once (a proxy goes in HTTPS_PROXY)"
        ) from error
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise LocalError(f"cannot store the schema registry in {home}: {reason}") from error
    except (RuntimeError, ValueError, AssertionError, KeyError) as error:
        raise LocalError(
            f"Apicurio {REGISTRY_VERSION} could not be fetched: jgo raised {type(error).__name__}"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _download(staging: Path) -> Path:
    try:
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  # the extra may be missing
    except ImportError as error:
        raise LocalError(EXTRA_MISSING) from error
    logging.getLogger("jgo").addHandler(logging.NullHandler())
    context = MavenContext(resolver=PythonResolver(), repo_cache=staging / "repository")
    project = context.project(_GROUP, _ARTIFACT).at_version(REGISTRY_VERSION)
    path: Path = project.artifact("all", "tar.gz").resolve()
    return path


def _check(archive: Path) -> None:
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != _SHA256:
        raise LocalError(
            f"what was fetched as Apicurio {REGISTRY_VERSION} is not what this version was released with"
            f" (SHA-256 {sha256[:12]}…, expected {_SHA256[:12]}…): it will not be run"
        )
