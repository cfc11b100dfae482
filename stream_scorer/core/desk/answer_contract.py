"""Assumed contract of the score endpoint, compared with one answer.

The endpoint is in no public SDK, so `stream_scorer.genesys.wire` assumes the form of its answer. Each assumption is one
sentence with a verdict. A finding names fields and types, never values.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from stream_scorer.core.text import quoted

_MAX_NAMES: Final = 5
_TYPES: Final = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
_ABSENT: Final = object()


class Assumption(NamedTuple):
    """One assumption about the answer.

    Attributes:
        text: the assumption.
        holds: whether the answer agrees with it; None: it could not be compared, since another one does not hold.
        found: what the answer has instead; empty: it agrees.
    """

    text: str
    holds: bool | None
    found: str = ""


def compare_answer(value: Any, contact_id: str) -> list[Assumption]:
    """Compare the answer to a request with one contact.

    Args:
        value: the JSON value of the body.
        contact_id: the id in the request.
    """
    results = value.get("results", _ABSENT) if isinstance(value, dict) else _ABSENT
    found = [_judge("the body is an object with a list 'results'", isinstance(results, list), _body(value))]
    only = results[0] if isinstance(results, list) and len(results) == 1 else _ABSENT
    count = f"{len(results)} results" if isinstance(results, list) else ""
    found.append(
        _judge("one contact has one result", only is not _ABSENT, count, known=isinstance(results, list)),
    )
    is_object = isinstance(only, dict)
    found.append(_judge("the result is an object", is_object, _type(only), known=only is not _ABSENT))
    item: dict[str, Any] = only if isinstance(only, dict) else {}
    interval = item.get("confidenceInterval", _ABSENT)
    echo = item.get("contactId", _ABSENT)
    echo_text = "another id" if isinstance(echo, str) else _type(echo)
    found.append(_judge("'contactId' is the id that was sent", echo == contact_id, echo_text, known=is_object))
    found += _numbers(item, ("score",), "", known=is_object)
    found.append(
        _judge("'confidenceInterval' is an object", isinstance(interval, dict), _type(interval), known=is_object)
    )
    bounds: dict[str, Any] = interval if isinstance(interval, dict) else {}
    found += _numbers(bounds, ("lower", "upper"), "confidenceInterval.", known=isinstance(interval, dict))
    given: list[Any] = [bounds.get("lower"), item.get("score"), bounds.get("upper")]
    numbers = [one for one in given if _is_number(one)]
    are_known = len(numbers) == 3  # noqa: PLR2004 - all of them
    found.append(
        _judge("lower <= score <= upper", are_known and numbers == sorted(numbers), "another order", known=are_known)
    )
    return found


def further_fields(value: Any) -> list[str]:
    """Return the fields of the answer that are not read, by their path; those of the first result only."""
    if not isinstance(value, dict):
        return []
    names = [name for name in value if name != "results"]
    results = value.get("results")
    first = results[0] if isinstance(results, list) and results else None
    if isinstance(first, dict):
        names += [f"results[].{name}" for name in first if name not in {"contactId", "score", "confidenceInterval"}]
        interval = first.get("confidenceInterval")
        if isinstance(interval, dict):
            names += [f"results[].confidenceInterval.{name}" for name in interval if name not in {"lower", "upper"}]
    return [*map(quoted, names[:_MAX_NAMES]), *(["more"] if len(names) > _MAX_NAMES else [])]


def _numbers(item: dict[str, Any], names: tuple[str, ...], prefix: str, *, known: bool) -> list[Assumption]:
    """Return the assumptions about numbers from 0 to 1."""
    found = []
    for name in names:
        value = item.get(name, _ABSENT)
        is_number = _is_number(value)
        is_finite = is_number and math.isfinite(value)
        text = "a number that is not finite" if is_number and not is_finite else "a number outside 0 to 1"
        found.append(
            _judge(
                f"'{prefix}{name}' is a number from 0 to 1",
                is_finite and 0 <= value <= 1,
                text if is_number else _type(value),
                known=known,
            )
        )
    return found


def _judge(text: str, holds: Any, found: str, *, known: bool = True) -> Assumption:
    if not known:
        return Assumption(text, None)
    return Assumption(text, bool(holds), "" if holds else found)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _body(value: Any) -> str:
    return f"no list 'results' in {_type(value)}" if isinstance(value, dict) else _type(value)


def _type(value: Any) -> str:
    return "nothing" if value is _ABSENT else _TYPES.get(type(value), "something else")
