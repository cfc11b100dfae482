"""Proves on live topics that nothing was lost or doubled: contacts and their outcomes, scores and their receipts."""

from __future__ import annotations

from stream_scorer.reconciliation.callbacks import reconcile_callbacks
from stream_scorer.reconciliation.scores import reconcile
from stream_scorer.reconciliation.topic_reader import Progress, provenance

__all__ = ["Progress", "provenance", "reconcile", "reconcile_callbacks"]
