"""Conversion of pandas DataFrames to contacts, and of results to columns; pandas itself is never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_scorer.errors import InputError, InputTypeError
from stream_scorer.library.plain_values import plain
from stream_scorer.library.results import ScoreResult

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stream_scorer.library.results import RejectedContact

RESULT_COLUMNS: Final = (
    "outcome",
    "score",
    "confidence_interval_lower",
    "confidence_interval_upper",
    "latency_ms",
    "timestamp",
    "imputed_features",
    "reasons",
    "detail",
)
_NONE: Final = float("nan")


def is_frame(value: Any) -> bool:
    """Return whether the value has the interface of a pandas DataFrame."""
    return getattr(value, "ndim", None) == 2 and hasattr(value, "columns") and hasattr(value, "index")  # noqa: PLR2004


def contacts_of(frame: Any, id_name: str, expected: Sequence[str], imputed: Collection[str]) -> list[dict[str, Any]]:
    """Return one contact a row.

    Args:
        frame: a pandas DataFrame; columns other than the expected features are ignored.
        id_name: the column, or the level of the index, with the contact ids. Integers become text.
        expected: the names of the features.
        imputed: the features that may be absent.

    Raises:
        InputTypeError: ``frame`` is not a DataFrame.
        InputError: a column is absent or occurs twice, or is named like a result column.
    """
    if not is_frame(frame):
        kind = type(frame).__name__
        raise InputTypeError(
            f"calculate_frame takes a pandas DataFrame, not {kind}: convert it, for example with to_pandas()"
        )
    columns = list(frame.columns)
    if id_name is None:  # the name of every unnamed index
        raise InputError("id is None: give the name of the id column, or name the index")
    if id_name in RESULT_COLUMNS:
        raise InputError(f"the id column must not be named {id_name!r}: that is a column of the results")
    if id_name not in columns and id_name not in frame.index.names:
        raise InputError(f"the frame has neither a column nor an index {id_name!r}: give the name of the id column")
    absent = [name for name in expected if name not in columns and name not in imputed]
    if absent:
        names = ", ".join(map(repr, absent))
        raise InputError(f"the frame has no column for {names}: add it, or give a value for it in imputation_map")
    present = [name for name in expected if name in columns]
    doubled = [name for name in (id_name, *present) if columns.count(name) > 1]
    if doubled:
        raise InputError(f"the frame has more than one column {doubled[0]!r}: rename the others")
    ids = frame[id_name] if id_name in columns else frame.index.get_level_values(id_name)
    values = zip(*(frame[name] for name in present), strict=True) if present else ((),) * len(ids)
    return [
        {"contactId": _text(contact_id), "features": dict(zip(present, row, strict=True))}
        for contact_id, row in zip(ids, values, strict=True)
    ]


def results_beside(frame: Any, id_name: str, settled: Mapping[int, ScoreResult | RejectedContact]) -> Any:
    """Return a DataFrame with the index of ``frame``, the id column and `RESULT_COLUMNS`, row by row.

    A row without an entry in ``settled`` is not finished: its outcome is None.
    """
    rows = [_row(settled.get(place)) for place in range(len(frame.index))]
    results = frame[[id_name] if id_name in list(frame.columns) else []].copy()
    for number, column in enumerate(RESULT_COLUMNS):
        results[column] = [row[number] for row in rows]
    return results


def _text(contact_id: Any) -> Any:
    """Return an integer id as text; a float stays, to be rejected: it may have lost digits already."""
    value = plain(contact_id)
    return str(value) if type(value) is int else value


def _row(settled: ScoreResult | RejectedContact | None) -> tuple[Any, ...]:
    if settled is None:
        return (None, _NONE, _NONE, _NONE, _NONE, None, None, None, None)
    if not isinstance(settled, ScoreResult):
        reasons = ", ".join(settled.reasons)
        return ("rejected", _NONE, _NONE, _NONE, _NONE, None, None, reasons, settled.detail)
    return (
        "review" if settled.review_reasons else "scored",
        settled.score,
        settled.confidence_interval_lower,
        settled.confidence_interval_upper,
        settled.latency_ms,
        settled.timestamp,
        ", ".join(settled.imputed_features),
        ", ".join(settled.review_reasons),
        None,
    )
