"""Options and outputs of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.console import Console

    from stream_scorer.core.reconciliation.callback_report import CallbackReport
    from stream_scorer.core.reconciliation.score_report import Report
    from stream_scorer.local.kafka.jars import Progress
    from stream_scorer.local.simulator import Scenario


class DemoTarget(StrEnum):
    """Target of the callbacks."""

    WEBHOOK = "webhook"
    DIALLER = "genesys-outbound"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the user.

    Attributes:
        contacts: number of generated contacts.
        keep: whether Kafka and the folder stay for inspection.
        seed: seed of the generated contacts.
        scenario: scenario of the simulator; None: no faults.
        target: ``webhook`` (the receiver) or ``genesys-outbound`` (the simulator's dialler).
    """

    contacts: int = 20_000
    keep: bool = False
    seed: int = 1
    scenario: Scenario | None = None
    target: DemoTarget = DemoTarget.DIALLER


@dataclass(frozen=True, slots=True)
class Screen:
    """Outputs of the demo.

    Attributes:
        results: console for lasting output: the summary.
        progress: console for changing output, events and errors.
        steps: shows messages about the current step until its block ends.
        show_report: prints a reconciliation of contacts, as ``stream-scorer reconcile`` does.
        show_callbacks: prints a reconciliation of scores and receipts.
    """

    results: Console
    progress: Console
    steps: Callable[[], AbstractContextManager[Progress]]
    show_report: Callable[[Report], None]
    show_callbacks: Callable[[CallbackReport], None]
