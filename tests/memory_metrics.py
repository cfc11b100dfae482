"""Metrics in memory, which check every call against the table of instruments."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from stream_scorer.runtime.metric_definitions import LOOP, NO_ATTRIBUTES, instruments_of

if TYPE_CHECKING:
    from stream_scorer.runtime.metric_definitions import Attributes, Counter, Gauge, Histogram, Instrument, Service

    Series = tuple[Instrument, frozenset[tuple[str, str | int]]]


class MemoryMetrics:
    """Values by instrument and attributes: the sum of a counter, the last value of a gauge, all of a histogram."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._instruments = frozenset(instruments_of(service))
        self._values: defaultdict[Series, list[float]] = defaultdict(list)
        # A simulated loop reports the same series millions of times: each is checked once.
        self._checked: dict[tuple[Instrument, tuple[tuple[str, str | int], ...]], Series] = {}

    def add(self, counter: Counter, amount: float = 1, attributes: Attributes = NO_ATTRIBUTES) -> None:
        assert amount >= 0
        series = self._series(counter, attributes)
        series[:] = [sum(series) + amount]

    def set(self, gauge: Gauge, value: float, attributes: Attributes = NO_ATTRIBUTES) -> None:
        self._series(gauge, attributes)[:] = [value]

    def remove(self, gauge: Gauge, attributes: Attributes) -> None:
        del self._values[gauge, frozenset(gauge.labels(attributes).items())]

    def record(self, histogram: Histogram, value: float, attributes: Attributes = NO_ATTRIBUTES) -> None:
        self._series(histogram, attributes).append(value)

    def value(self, instrument: Counter | Gauge, **attributes: str | int) -> float:
        """The sum or the last value; 0 without a call."""
        return sum(self.values(instrument, **attributes))

    def values(self, instrument: Instrument, **attributes: str | int) -> list[float]:
        """Return all values of the series that have at least these attributes."""
        return [
            value
            for (one, labels), values in self._values.items()
            if one is instrument and attributes.items() <= dict(labels).items()
            for value in values
        ]

    def _series(self, instrument: Instrument, attributes: Attributes) -> list[float]:
        call = (instrument, tuple(attributes.items()))
        series = self._checked.get(call)
        if series is None:
            series = self._checked[call] = self._check(instrument, attributes)
        return self._values[series]

    def _check(self, instrument: Instrument, attributes: Attributes) -> Series:
        assert instrument in self._instruments, f"{instrument.name} is not one of {self._service}"
        labels = instrument.labels(attributes)
        known = {one.name: one for one in instrument.attributes if one is not LOOP or self._service == "callbacks"}
        assert labels.keys() <= known.keys(), f"{instrument.name} has no attribute {labels.keys() - known.keys()}"
        missing = {name for name, one in known.items() if not one.is_optional} - labels.keys()
        assert not missing, f"{instrument.name} lacks {missing}"
        for name, value in labels.items():
            allowed = known[name].values
            assert not allowed or value in allowed, f"{instrument.name}: {value!r} is not a known {name}"
        return instrument, frozenset(labels.items())
