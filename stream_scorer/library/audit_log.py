"""Audit file of the library: one JSON object a line, rotated by size."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from stream_scorer.errors import SettingsError, printable
from stream_scorer.fork import bind_to_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from stream_scorer.library.results import RejectedContact, ScoreResult


class AuditLogger:
    """Writer of the audit file: one outcome for each contact, scored, review or rejected. No feature values.

    A batch is one line ``{"at", "model_id", "batch_id", "batch_size", "results", "rejected"}``, followed by one line a
    contact ``{"batch_id", "contact_id", "outcome", …}`` with ``outcome`` one of ``SCORED``, ``REVIEW``, ``REJECTED``.

    A batch that would take the file over ``max_bytes`` rotates it first: it becomes ``<log_file>.1``, that one ``.2``
    and so on; the one after ``backup_count`` is deleted. A batch is never split over two files. Threads may share an
    `AuditLogger`, processes its file: a record lock covers each batch and the rotation before it.
    """

    def __init__(
        self,
        log_file: str | os.PathLike[str] = "predictive_engagement_audit.log",
        max_bytes: int = 10 * 1024 * 1024,
        backup_count: int = 5,
    ) -> None:
        """Check the arguments; the file is created before the first request.

        Args:
            log_file: path of the file.
            max_bytes: size at which the file is rotated; 0: never.
            backup_count: number of rotated files that are kept, at least 1.

        Raises:
            SettingsError: ``log_file`` is not a path, or a size or count is not a whole number.
        """
        if not isinstance(log_file, str | os.PathLike):
            raise SettingsError("log_file must be a path")
        for name, number in (("max_bytes", max_bytes), ("backup_count", backup_count)):
            if type(number) is not int:
                raise SettingsError(f"{name} must be a whole number")
        self.log_file = log_file
        self.max_bytes = max_bytes
        self.backup_count = max(1, backup_count)
        self._lock = threading.Lock()
        bind_to_process(self)

    def __repr__(self) -> str:
        file, count = str(self.log_file), self.backup_count
        return f"AuditLogger(log_file={file!r}, max_bytes={self.max_bytes}, backup_count={count})"

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked process; a thread of the parent may hold the old one."""
        self._lock = threading.Lock()

    def check(self) -> None:
        """Open the file for writing, and create it if it does not exist.

        Raises:
            SettingsError: the file cannot be written; names it.
        """
        try:
            path = Path(self.log_file)
            if path.is_fifo():  # opening a pipe without a reader blocks
                raise SettingsError(f"the audit file {printable(str(path))} is a pipe: name a file")
            path.open("ab").close()
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from error

    def log_score_batch(
        self,
        results: Sequence[ScoreResult],
        model_id: str,
        batch_size: int,
        *,
        rejected: Sequence[RejectedContact] = (),
        batch_id: str | None = None,
    ) -> None:
        """Write the lines of one batch.

        Args:
            results: scored contacts and those for review (with ``review_reasons``).
            model_id: the model that scored them.
            batch_size: number of contacts in the request.
            rejected: the contacts without a score.
            batch_id: id of the request, in all of its lines.

        Raises:
            SettingsError: the file cannot be written; names it.
        """
        head = {
            "at": datetime.now(UTC).isoformat(),
            "model_id": model_id,
            "batch_id": batch_id,
            "batch_size": batch_size,
            "results": len(results),
            "rejected": len(rejected),
        }
        lines = [
            head,
            *(_result_line(one, batch_id) for one in results),
            *(_rejected_line(one, batch_id) for one in rejected),
        ]
        block = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
        try:
            with self._lock, self._locked_file(len(block)) as file:
                file.write(block)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError | ValueError) -> SettingsError:
        reason = error.strerror if isinstance(error, OSError) else "this is not a path"
        return SettingsError(f"the audit file {printable(str(self.log_file))} cannot be written: {reason}")

    @contextlib.contextmanager
    def _locked_file(self, size: int) -> Iterator[BinaryIO]:
        """Open the file for ``size`` more bytes, rotated if needed, under a lock against other processes."""
        path = Path(self.log_file)
        while True:
            with path.open("ab") as file:
                # A record lock belongs to the process. A `flock` would also be held by a child that is forked now.
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.lockf(file, fcntl.LOCK_EX)
                if not _is_at(file, path):
                    continue  # another process has rotated it meanwhile
                if not self._is_full(file, size):
                    yield file
                    return
                self._rotate(path)

    def _is_full(self, file: BinaryIO, size: int) -> bool:
        written = os.fstat(file.fileno()).st_size
        return 0 < self.max_bytes < written + size and written > 0

    def _rotate(self, path: Path) -> None:
        numbered = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, self.backup_count + 1))]
        for older, newer in zip(reversed(numbered[1:]), reversed(numbered[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _result_line(result: ScoreResult, batch_id: str | None) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "contact_id": result.contact_id,
        "outcome": "REVIEW" if result.review_reasons else "SCORED",
        "score": result.score,
        "confidence_lower": result.confidence_interval_lower,
        "confidence_upper": result.confidence_interval_upper,
        "latency_ms": round(result.latency_ms, 2),
        "scored_at": result.timestamp,
        "imputed_features": result.imputed_features,
        "reasons": result.review_reasons,
    }


def _rejected_line(rejected: RejectedContact, batch_id: str | None) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "contact_id": rejected.contact_id,
        "outcome": "REJECTED",
        "reasons": rejected.reasons,
        "detail": rejected.detail,
    }
