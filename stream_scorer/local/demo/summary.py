"""Summary of the demo: verdict, reasons of rejections, price, and commands to go on with."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.reconciliation.callback_report import CallbackReport
    from stream_scorer.core.reconciliation.score_report import Report

_PROGRAM: Final = "stream-scorer"


class Price(NamedTuple):
    """Contacts that are paid for.

    Attributes:
        paid: contacts that the API has scored, repeats included.
        scored: contacts with a score, those in review included.
        controls: contacts that were sent again as controls.
        killed: name of the worker that was killed; None: none was.
        scenario: whether a scenario played.
    """

    paid: int
    scored: int
    controls: int
    killed: str | None
    scenario: bool

    def __str__(self) -> str:
        again = self.paid - self.scored
        sums = f"price: {self.paid:,} contacts paid = {self.scored:,} with a score + {again:,} billed again"
        return f"{sums}{self._why(again)}"

    def _why(self, again: int) -> str:
        if not again:
            return ""
        controls = min(self.controls, again)
        parts = (
            [f"{controls:,} as controls, evidence that the API works while single contacts fail"] if controls else []
        )
        if again > controls:
            parts.append(f"{again - controls:,} {self._cause()}")
        return f" ({'; '.join(parts)})"

    def _cause(self) -> str:
        kill = f"sent by {self.killed} and not committed when it was killed" if self.killed else ""
        lost = "whose response was lost or cut by the scenario" if self.scenario else ""
        return " or ".join(filter(None, (kill, lost))) or "whose response was lost"


@dataclass(frozen=True, slots=True)
class Summary:
    """What is printed at the end.

    Attributes:
        report: reconciliation of the contacts.
        receipts: reconciliation of the scores and receipts.
        reasons: rejected contacts by reason.
        price: the contacts that are paid for.
        calls: sentence about the destination of the callbacks.
        contacts: a line for each followed contact.
        scoring_s: seconds from the first contact read to the last outcome.
        total_s: seconds of the whole demo.
        scenario: sentence about the scenario; None: there was none.
    """

    report: Report
    receipts: CallbackReport
    reasons: Mapping[str, int]
    price: Price
    calls: str
    contacts: tuple[str, ...]
    scoring_s: float
    total_s: float
    scenario: str | None

    def lines(self) -> Iterator[str]:
        """Yield the paragraphs."""
        yield self.report.equation
        yield f"verdict of reconcile: {self.report.verdict}; {self.receipts.verdict}"
        yield self.receipts.equation
        yield self.calls
        yield self._rejections()
        yield str(self.price)
        yield from self.contacts
        inputs = self.report.totals.inputs
        yield (
            f"{inputs:,} contacts in {self.scoring_s:.1f} s ({inputs / self.scoring_s:,.0f}/s); the whole demo took"
            f" {self.total_s:.1f} s"
        )
        if self.scenario is not None:
            yield self.scenario

    def commands(self, scenario: str | None) -> str:
        """Return three commands, each with its purpose, for a reader who wants more."""
        program = _program()
        other = "poison" if scenario == "bad-day" else "bad-day"
        purposes = {
            f"{program} demo --scenario {other}": "an API that fails",
            f"{program} demo --keep": "leaves Kafka running",
            f"{program} config init --out my.toml": "settings for your Kafka",
        }
        width = max(map(len, purposes))
        return "\n".join(("to go on:", *(f"  {command:{width}}  # {why}" for command, why in purposes.items())))

    def _rejections(self) -> str:
        """Return the number of rejected contacts, by reason, the most frequent first."""
        counts = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{reason} {count:,}" for reason, count in counts)
        return f"rejected {sum(self.reasons.values()):,}: {listed or 'none'}"


def _program() -> str:
    """Return the program as it was called, so that its commands can be copied."""
    called = Path(sys.argv[0])
    if called.name != _PROGRAM:
        return _PROGRAM
    try:
        return str(called.absolute().relative_to(Path.cwd()))
    except ValueError:
        return _PROGRAM
