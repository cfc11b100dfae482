"""Process of the demo that runs one command, as in production: settings in the environment, a log file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import stream_scorer
from stream_scorer.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Longer than the worker's own shutdown limit (scoring.shutdown_timeout_s and some seconds).
_GRACE_S: Final = 35.0
_SHORT_GRACE_S: Final = 3.0
_TAIL_BYTES: Final = 64 * 1024


class WorkerProcess:
    """Process with its own session: Ctrl-C reaches the demo only, which stops it gracefully.

    Args:
        name: its name in the demo.
        arguments: arguments of ``stream-scorer``, the subcommand first.
        environment: its whole environment, secrets included.
        log_file: file of its output.
        folder: its working directory.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log_file: Path, folder: Path
    ) -> None:
        package = str(Path(stream_scorer.__file__).parents[1])
        search = os.pathsep.join(filter(None, (package, environment.get("PYTHONPATH"))))
        self.name = name
        self.command = arguments[0]
        self._arguments = arguments
        self._environment = {**environment, "PYTHONPATH": search}
        self._log_file = log_file
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.was_killed = False
        self._may_end = False

    def start(self) -> None:
        """Start the process, once.

        Raises:
            LocalError: the process cannot be started.
        """
        try:
            with self._log_file.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - this program  # nosec B603
                    [sys.executable, "-m", "stream_scorer", *self._arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    cwd=self._folder,
                    start_new_session=True,
                )
        except OSError as error:
            raise LocalError(
                f"stream-scorer {self.command} could not be started: {error.strerror} ({error.filename})"
            ) from None

    def require_running(self) -> None:
        """Check that the process has not ended by itself.

        Raises:
            LocalError: it has ended.
        """
        code = None if self._process is None or self._may_end else self._process.poll()
        if code is not None:
            raise LocalError(f"stream-scorer {self.command} has ended with exit code {code} before its work was done")

    def stop(self) -> None:
        """Stop the process gracefully, unless it was killed: it finishes requests in flight, commits, leaves its group.

        Raises:
            LocalError: it took too long and was killed, or it ended with an error.
        """
        self._may_end = True
        code = self._terminate(_GRACE_S)
        if code != 0 and not self.was_killed:
            raise LocalError(f"stream-scorer {self.command} was asked to stop and ended with exit code {code}")

    def kill(self) -> None:
        """Kill the process with SIGKILL, as a crash or the kernel would."""
        if self._process is not None:
            self.was_killed = self._may_end = True
            self._process.kill()
            self._process.wait()

    def wait(self, timeout_s: float) -> int:
        """Return the exit code of a command that ends by itself.

        Raises:
            LocalError: it runs longer.
        """
        if self._process is None:
            return 0
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LocalError(f"stream-scorer {self.command} has not ended within {timeout_s:g} s") from None

    def end(self) -> None:
        """End the process within a few seconds, by force if necessary; if it is not running, do nothing."""
        self._terminate(_SHORT_GRACE_S)

    def last_lines(self, amount: int) -> list[str]:
        """Return the last lines of its log; empty without a log."""
        try:
            with self._log_file.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - _TAIL_BYTES))
                return log.read().decode(errors="replace").splitlines()[-amount:]
        except OSError:
            return []

    def _terminate(self, grace_s: float) -> int:
        process = self._process
        if process is None:
            return 0
        process.terminate()  # nothing, if it has ended
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
