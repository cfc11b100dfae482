"""Changes of ``--set`` and ``--drop`` to a contact that is replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from stream_scorer.contact_files.rows import RowError, parse_cell, parse_time
from stream_scorer.core.attributes import ATTRIBUTE_PREFIX
from stream_scorer.core.text import is_text, quoted
from stream_scorer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_scorer.core.scoring.feature_types import Feature
    from stream_scorer.core.scoring.types import ContactEvent, FeatureValue

T = TypeVar("T")

_FEATURE_PREFIX: Final = "features."
_TEXT_FIELDS: Final = ("campaign_id", "model_version")
_TIME_FIELD: Final = "occurred_at"
_OPTIONAL: Final = (*_TEXT_FIELDS, _TIME_FIELD)


class Changes:
    """Changes to a contact, checked before the first record is read.

    Args:
        assignments: ``NAME=VALUE``. NAME is a feature of the model, ``campaign_id``, ``model_version``, ``occurred_at``
            or ``attributes.NAME``; ``features.NAME`` where a feature has one of these names. An empty value is null.
        drops: names to remove, in the same form. Any feature, also one that the model does not have.
        features: the model's features.

    Raises:
        UsageError: a name is unknown, a value does not have the feature's type, or a name is given twice.
    """

    def __init__(self, assignments: Sequence[str], drops: Sequence[str], features: Mapping[str, Feature]) -> None:
        self._features: dict[str, FeatureValue | None] = {}
        self._attributes: dict[str, str] = {}
        self._texts: dict[str, Any] = {}
        self._occurred_at_ms: int | None = None
        self._drops = frozenset(drops)
        self._given: dict[str, str] = {}
        for one in assignments:
            name, equals, value = one.partition("=")
            if not equals or not name:
                raise UsageError(f"--set {quoted(name)}: write NAME=VALUE")
            if name in self._given or name in self._drops:
                raise UsageError(f"{quoted(name)} is changed twice: use --set or --drop once for each name")
            if not is_text(one):
                raise UsageError(f"--set {quoted(name)}: it is not valid Unicode")
            self._assign(name, value, features)
            self._given[name] = value
        for name in drops:
            if not is_text(name):
                raise UsageError(f"--drop {quoted(name)}: it is not valid Unicode")
            if name in (_TIME_FIELD, "contact_id", "event_id"):
                raise UsageError(f"--drop {name}: every contact has it; change it with --set, or discard the record")
        self._given |= {f"-{name}": "" for name in drops}

    @property
    def texts(self) -> Mapping[str, str]:
        """The changes as they were given, by name; a name to remove begins with a minus."""
        return self._given

    def __bool__(self) -> bool:
        return bool(self._given)

    def _assign(self, name: str, value: str, features: Mapping[str, Feature]) -> None:
        if name.startswith(ATTRIBUTE_PREFIX):
            self._attributes[name.removeprefix(ATTRIBUTE_PREFIX)] = value
        elif name in _TEXT_FIELDS and name not in features:
            self._texts[name] = value or None
        elif name == _TIME_FIELD and name not in features:
            self._occurred_at_ms = _checked(name, lambda: parse_time(value))
        else:
            feature = name.removeprefix(_FEATURE_PREFIX)
            if feature not in features:
                known = ", ".join((*features, *_OPTIONAL, f"{ATTRIBUTE_PREFIX}NAME"))
                raise UsageError(f"--set {quoted(name)}: the model has no such feature; use {known}")
            kind = features[feature].type
            self._features[feature] = _checked(name, lambda: parse_cell(name, value, kind)) if value else None

    def apply(self, event: ContactEvent) -> ContactEvent:
        """Return the changed contact."""
        features = {**event.features, **self._features}
        attributes = {**event.attributes, **self._attributes}
        texts = dict(self._texts)
        for name in self._drops:
            if name.startswith(ATTRIBUTE_PREFIX):
                attributes.pop(name.removeprefix(ATTRIBUTE_PREFIX), None)
            elif name in _TEXT_FIELDS and name not in event.features:
                texts[name] = None
            else:
                features.pop(name.removeprefix(_FEATURE_PREFIX) if name not in features else name, None)
        changed = event._replace(features=features, attributes=attributes, **texts)
        return changed if self._occurred_at_ms is None else changed._replace(occurred_at_ms=self._occurred_at_ms)


def _checked(name: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except RowError as error:
        raise UsageError(f"--set {name}: {error}") from None
