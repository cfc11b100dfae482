"""Simulated model: the same score for the same contact on every machine and in every run.

``score = 1 / (1 + exp(-(bias + sum of effects)))``, cut to six digits. A number's effect is
``weight * (x / (scale + |x|))``; a string's is uniform, derived from its checksum. Weights of features other than the
tutorial's are derived from the checksum of their names: no seed, no state. The interval of a score depends on the id.

Pure, and written for speed, since benchmarks run it beside the worker. Checks that hold for every contact of a shape
(which features, of which types) are done once and cached as a plan. One loop of few operations does the rest.
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from stream_scorer.local.simulator.validation import check_ids, examine_contact, is_always_valid, open_envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.local.simulator.config import SimulatorConfig

BIAS = -1.3
TEXT_AMPLITUDE = 1.0
# Tuned for 10 to 25 % of real contacts at or over the callback threshold of 0.75: (weight, scale).
TUTORIAL_EFFECTS = {
    "previous_calls": (2.4, 1.0),
    "avg_handle_time": (5.2, 300.0),
    "last_contact_days": (-1.2, 15.0),
}
STEPS = 1_000_000  # scores and bounds are whole numbers of these until they are serialized
DRAWS = 10_000
SWAPPED, OUTSIDE = -1, -2
REMEMBERED = 10_000


class _Known(dict[Any, float]):
    """Cache of the effects of a feature's values: most features repeat their values."""

    def __init__(self, work_out: Callable[[Any], float]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, value: Any) -> float:
        if len(self) >= REMEMBERED:
            self.clear()
        effect = self[value] = self._work_out(value)
        return effect


class _Effect(NamedTuple):
    """Effect of one feature of one type on the score. ``known`` is None for floats, which seldom repeat."""

    known: _Known | None
    weight: float
    scale: float


def _uniform(text: str, salt: int = 0) -> float:
    """Return a number in [0, 1) derived from text and salt only. `hash()` differs between processes."""
    return (crc32(text.encode(), salt) * 2654435761 & 0xFFFFFFFF) / 0x100000000


def _effect(name: str, kind: type) -> _Effect:
    weight, scale = TUTORIAL_EFFECTS.get(name) or (4 * _uniform(name) - 1, 1 + 99 * _uniform(name, 1))
    if kind is float:
        return _Effect(None, weight, scale)
    if kind is str:
        return _Effect(
            _Known(lambda text: TEXT_AMPLITUDE * (2 * _uniform(text, crc32(name.encode())) - 1)), weight, scale
        )
    return _Effect(_Known(lambda number: weight * (number / (scale + abs(number)))), weight, scale)


def _interval_widths(config: SimulatorConfig) -> list[int]:
    """Return the width in steps of every draw: narrow 0.02 to 0.13, usual 0.16 to 0.4, or `SWAPPED`, `OUTSIDE`."""
    inconsistent = round(DRAWS * config.inconsistent_share)
    narrow = min(round(DRAWS * config.narrow_share), DRAWS - inconsistent)
    usual = DRAWS - inconsistent - narrow
    return [
        *((SWAPPED, OUTSIDE)[draw % 2] for draw in range(inconsistent)),
        *(20_000 + 110_000 * draw // narrow for draw in range(narrow)),
        *(160_000 + 240_000 * draw // usual for draw in range(usual)),
    ]


def _inconsistent(score: int, kind: int) -> tuple[int, int]:
    """Return invalid bounds within [0, STEPS]: swapped, or both on one side of the score."""
    if kind == SWAPPED:
        lower = min(max(0, score - STEPS // 10), STEPS * 8 // 10)
        return lower + STEPS // 5, lower
    if score > STEPS // 2:
        return score - STEPS * 3 // 10, score - STEPS // 10
    return score + STEPS // 10, score + STEPS * 3 // 10


class Model:
    """Model that checks requests and scores their contacts."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._effects: dict[tuple[str, type], _Effect] = {}
        self._plans: dict[tuple[object, ...], tuple[_Effect, ...]] = {}
        self._widths = _interval_widths(config)

    def score(self, request: Any) -> tuple[list[str], list[dict[str, Any]]]:
        """Return the ids and the ``results`` of a decoded request body, in its order.

        Raises:
            BadRequest: the body violates the contract, or contains a refused contact.
            UnknownVersion: the model has no such ``modelVersion``.
        """
        contacts, version = open_envelope(request, self._config)
        results = self._results(contacts, BIAS if version is None else BIAS + 0.2 * (_uniform(version) - 0.5))
        ids = [contact["contactId"] for contact in contacts]
        check_ids(ids, self._config)
        return ids, results

    def _results(self, contacts: list[Any], bias: float) -> list[dict[str, Any]]:
        plans, widths = self._plans, self._widths
        results = []
        for contact in contacts:
            try:
                contact_id, features = contact["contactId"], contact["features"]
                values = features.values()
                effects = plans[*features, *map(type, values)]
                plain = len(contact) == 2 and contact_id.__class__ is str and contact_id  # noqa: PLR2004 - id, features
            except (KeyError, TypeError, AttributeError):
                plain = False
            if not plain:
                contact_id, features = examine_contact(contact, self._config)
                values = features.values()
                effects = self._plan(contact_id, features)
            total = bias
            for (known, weight, scale), value in zip(effects, values):  # noqa: B905 - same length; the check costs 10 %
                total += weight * (value / (scale + abs(value))) if known is None else known[value]
            score = int(STEPS / (1.0 + exp(-total)))
            width = widths[crc32(contact_id.encode()) % DRAWS]
            if width < 0:
                lower, upper = _inconsistent(score, width)
            else:
                lower = score - width // 2
                if lower < 0:
                    lower = 0
                elif lower > STEPS - width:
                    lower = STEPS - width
                upper = lower + width
            interval = {"lower": lower / STEPS, "upper": upper / STEPS}
            results.append({"contactId": contact_id, "score": score / STEPS, "confidenceInterval": interval})
        return results

    def _plan(self, contact_id: str, features: dict[str, Any]) -> tuple[_Effect, ...]:
        """Return the effects of these features in order; cached if every contact of this shape is valid."""
        always = is_always_valid(contact_id, features, self._config)
        if len(self._effects) > REMEMBERED or len(self._plans) > REMEMBERED:
            self._effects.clear()
            self._plans.clear()
        keys = [(name, type(value)) for name, value in features.items()]
        plan = tuple(self._effects.get(key) or self._effects.setdefault(key, _effect(*key)) for key in keys)
        if always:
            self._plans[*features, *map(type, features.values())] = plan
        return plan
