"""The judge's rules for callbacks: every score that is due is planned once, and has one final receipt."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from scoring_harness import SCORE, Avro

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expected_state import ExpectedState

CALLBACK = Avro("campaign-callback.avsc")
RECEIPT = Avro("callback-receipt.avsc")


def broken_callbacks(books: ExpectedState) -> Iterator[tuple[str, str, str]]:
    """Kind, place and text of everything that is wrong with callbacks and receipts."""
    planned: Counter[str] = Counter()
    for row in books.rows["callbacks"]:
        for source in CALLBACK.decode(row.value)["sources"]:
            planned[source] += 1
            if planned[source] > 1:
                yield "planned twice", row.place, f"{source} stands in another callback too"
    receipts: Counter[str] = Counter()
    told: Counter[str] = Counter()
    for row in books.rows["receipts"]:
        receipt = RECEIPT.decode(row.value)
        receipts[receipt["callback_id"]] += 1
        told.update(receipt["sources"])
        if receipts[receipt["callback_id"]] > 1:
            yield "receipt twice", row.place, f"callback {receipt['callback_id']} has another receipt"
    due = _due(books)
    yield from (("no receipt", source, "is due, and has no receipt") for source in due - told.keys())
    yield from (("receipt undue", source, "has a receipt and is not due") for source in told.keys() - due)
    for source, times in told.items():
        if times > 1:
            yield "receipt twice", source, f"stands in {times} receipts"


def _due(books: ExpectedState) -> set[str]:
    """The places of the scores that are to be called about."""
    scores = ((row.place, SCORE.decode(row.value)) for row in books.rows["scores"])
    return {place for place, score in scores if score["score"] >= books.threshold and not score["review_reasons"]}
