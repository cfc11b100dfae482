"""Conversion of numpy and pandas values to JSON values, without an import of either library."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# By the kind of a numpy dtype. Times are absent: their `item` is a plain number of nanoseconds.
_OF_KIND: Final[dict[str, Callable[[Any], Any]]] = {"b": bool, "i": int, "u": int, "f": float, "U": str}
_MISSING_OF_PANDAS: Final = ("NAType", "NaTType")


def plain(value: Any) -> Any:
    """Return a value as JSON represents it.

    A numpy scalar becomes Python's bool, int, float or str. NaN, NA and NaT become None: they are missing. All other
    values are returned unchanged, for the validation.
    """
    kind = type(value)
    if value is None or kind in (str, int, bool):
        return value
    if isinstance(value, float):  # numpy.float64 is a float
        return _present(float(value))
    dtype_kind = getattr(getattr(value, "dtype", None), "kind", None)
    if dtype_kind is not None and getattr(value, "ndim", None) == 0:
        convert = _OF_KIND.get(dtype_kind)
        return _present(value if convert is None else convert(value))
    if kind.__name__ in _MISSING_OF_PANDAS and kind.__module__.partition(".")[0] == "pandas":
        return None
    return None if isinstance(value, Decimal) and value.is_nan() else value


def _present(value: Any) -> Any:
    return None if value != value else value  # noqa: PLR0124 - only NaN and NaT differ from themselves


def plain_features(features: Any) -> Any:
    """Return the features of one contact with plain values; a pandas Series counts as a dict by its labels."""
    if getattr(features, "ndim", None) == 1 and callable(getattr(features, "to_dict", None)):
        features = features.to_dict()
    if not isinstance(features, Mapping):
        return features
    return {name: plain(value) for name, value in features.items()}
