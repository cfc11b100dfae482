"""The clock of the scoring worker is the one of all services."""

from __future__ import annotations

from stream_scorer.clock import Clock

__all__ = ["Clock"]
