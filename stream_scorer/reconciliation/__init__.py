"""Reconciliation of live topics: proves that no outcome of a contact and no receipt of a score is lost or duplicate."""

from __future__ import annotations

from stream_scorer.reconciliation.callbacks import reconcile_callbacks
from stream_scorer.reconciliation.scores import reconcile
from stream_scorer.reconciliation.topic_reader import Progress, provenance

__all__ = ["Progress", "provenance", "reconcile", "reconcile_callbacks"]
