"""Signals that stop a program: SIGINT (Ctrl-C), SIGTERM, and SIGHUP (the end of its terminal)."""

from __future__ import annotations

import signal


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals to handle as a stop.

    Without a handler SIGHUP ends the process without its last commit. Where it is ignored, as under ``nohup``, the
    process must outlive the terminal, so SIGHUP is left out.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    return numbers if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*numbers, signal.SIGHUP)
