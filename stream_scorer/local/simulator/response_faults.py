"""Damage to the results of a real answer, by a fault's edits (`stream_scorer.local.simulator.faults`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_scorer.local.simulator.faults import ResultEdit, Selected

DRAWS = 10_000
BOUNDS = {"lower", "upper"}
# Farther from the score than any tolerance, and narrow enough to stay within [0, 1].
GAP, WIDTH = 0.05, 0.2


class _Item(NamedTuple):
    """Result before the edits, which select by it, and after them."""

    was: dict[str, Any]
    now: dict[str, Any]


def select(contact_ids: Sequence[str], selected: Selected) -> set[str]:
    """Return the selected contacts."""
    if selected == "all":
        return set(contact_ids)
    if selected.count is not None:
        return set(contact_ids[: selected.count])
    if selected.share is not None:
        limit = selected.share * DRAWS
        return {contact_id for contact_id in contact_ids if crc32(contact_id.encode()) % DRAWS < limit}
    if selected.ids is not None:
        return set(selected.ids).intersection(contact_ids)
    return {contact_id for contact_id in contact_ids if contact_id.startswith(selected.prefix or "")}


def damaged(results: Iterable[dict[str, Any]], edits: Iterable[ResultEdit]) -> list[dict[str, Any]]:
    """Return the results after all edits; the arguments are not changed."""
    items = [_Item(result, result) for result in results]
    ids = [item.was["contactId"] for item in items]
    for edit in edits:
        if edit.do == "reverse":
            items.reverse()
            continue
        meant, spoil = select(ids, edit.of), _EDITS[edit.do]
        items = [one for item in items for one in (spoil(item, edit) if item.was["contactId"] in meant else (item,))]
    return [item.now for item in items]


def _with(item: _Item, **fields: Any) -> _Item:
    return _Item(item.was, item.now | fields)


def _other(score: float) -> float:
    """Return another valid score."""
    return score + 0.25 if score < 0.5 else score - 0.25  # noqa: PLR2004 - the middle


def _around(score: float) -> dict[str, Any]:
    lower = min(max(score - WIDTH / 2, 0.0), 1.0 - WIDTH)
    return {"score": round(score, 6), "confidenceInterval": _from(lower)}


def _beside(score: float) -> dict[str, float]:
    return _from(score - GAP - WIDTH if score > 0.5 else score + GAP)  # noqa: PLR2004 - the middle


def _from(lower: float) -> dict[str, float]:
    return {"lower": round(lower, 6), "upper": round(lower + WIDTH, 6)}


# --- edits of one result: return none, one or more


def _repeat(item: _Item, _: ResultEdit) -> tuple[_Item, ...]:
    return item, _with(item)


def _contradict(item: _Item, _: ResultEdit) -> tuple[_Item, ...]:
    return item, _with(item, **_around(_other(item.was["score"])))


def _unknown(item: _Item, _: ResultEdit) -> tuple[_Item, ...]:
    return item, _with(item, contactId=f"unknown-{item.was['contactId']}")


def _swap(item: _Item, _: ResultEdit) -> tuple[_Item, ...]:
    bounds = item.was["confidenceInterval"]
    return (_with(item, confidenceInterval={"lower": bounds["upper"], "upper": bounds["lower"]}),)


def _outside(item: _Item, _: ResultEdit) -> tuple[_Item, ...]:
    return (_with(item, confidenceInterval=_beside(item.was["score"])),)


def _field(item: _Item, edit: ResultEdit) -> tuple[_Item, ...]:
    if edit.field not in BOUNDS:
        return (_Item(item.was, _changed(item.now, edit)),)
    interval = item.now.get("confidenceInterval")
    return (_with(item, confidenceInterval=_changed(interval if isinstance(interval, dict) else {}, edit)),)


def _changed(content: dict[str, Any], edit: ResultEdit) -> dict[str, Any]:
    rest = {name: value for name, value in content.items() if name != edit.field}
    if edit.do == "remove":
        return rest
    return rest | {str(edit.field): edit.value if edit.literal is None else orjson.Fragment(edit.literal)}


_EDITS: Final[dict[str, Callable[[_Item, ResultEdit], tuple[_Item, ...]]]] = {
    "omit": lambda *_: (),
    "repeat": _repeat,
    "contradict": _contradict,
    "unknown": _unknown,
    "swap": _swap,
    "outside": _outside,
    "remove": _field,
    "set": _field,
}
