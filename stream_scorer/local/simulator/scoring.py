"""The simulated model: the same score for the same contact on every machine and in every run.

``score = 1 / (1 + exp(-(bias + sum of effects)))``, cut to six digits. A number's effect is
``weight * (x / (scale + |x|))``; a string's is drawn evenly from its checksum. Weights of features other than the
tutorial's come from the checksum of their names: no seed, no state. The interval around a score depends on the id.

Pure, and written for speed: it stands beside the worker in benchmarks. What holds for every contact of a shape (which
features, of which types) is checked once and remembered as a plan, so one loop of few operations does the rest.
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
# Tuned so that between 10 and 25 % of real contacts reach the callback threshold of 0.75: (weight, scale).
TUTORIAL_EFFECTS = {
    "previous_calls": (2.4, 1.0),
    "avg_handle_time": (5.2, 300.0),
    "last_contact_days": (-1.2, 15.0),
}
STEPS = 1_000_000  # scores and bounds are whole numbers of these until they are written
DRAWS = 10_000
SWAPPED, OUTSIDE = -1, -2
REMEMBERED = 10_000


class _Known(dict[Any, float]):
    """The effects of a feature's values, each worked out when first seen: most features repeat their values."""

    def __init__(self, work_out: Callable[[Any], float]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, value: Any) -> float:
        if len(self) >= REMEMBERED:
            self.clear()
        effect = self[value] = self._work_out(value)
        return effect


class _Effect(NamedTuple):
    """How one feature of one type acts on the score. ``known`` is None for floats, which seldom repeat."""

    known: _Known | None
    weight: float
    scale: float


def _uniform(text: str, salt: int = 0) -> float:
    """A number in [0, 1) that only the text and the salt decide. `hash()` would change with every process."""
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
    """The width in steps for every draw, narrow ones 0.02 to 0.13, usual ones 0.16 to 0.4; or `SWAPPED`, `OUTSIDE`."""
    inconsistent = round(DRAWS * config.inconsistent_share)
    narrow = min(round(DRAWS * config.narrow_share), DRAWS - inconsistent)
    usual = DRAWS - inconsistent - narrow
    return [
        *((SWAPPED, OUTSIDE)[draw % 2] for draw in range(inconsistent)),
        *(20_000 + 110_000 * draw // narrow for draw in range(narrow)),
        *(160_000 + 240_000 * draw // usual for draw in range(usual)),
    ]


def _inconsistent(score: int, kind: int) -> tuple[int, int]:
    """Bounds that cannot be, within [0, STEPS] all the same: swapped, or both on one side of the score."""
    if kind == SWAPPED:
        lower = min(max(0, score - STEPS // 10), STEPS * 8 // 10)
        return lower + STEPS // 5, lower
    if score > STEPS // 2:
        return score - STEPS * 3 // 10, score - STEPS // 10
    return score + STEPS // 10, score + STEPS * 3 // 10


class Model:
    """Checks requests and scores their contacts."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._effects: dict[tuple[str, type], _Effect] = {}
        self._plans: dict[tuple[object, ...], tuple[_Effect, ...]] = {}
        self._widths = _interval_widths(config)

    def score(self, request: Any) -> tuple[list[str], list[dict[str, Any]]]:
        """The ids and the ``results`` of a decoded request body, in its order.

        Raises:
            BadRequest: the body breaks the contract, or holds a contact that is refused.
            UnknownVersion: ``modelVersion`` is none of the model's.
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
        """The effects of these features in their order; remembered where every contact of this shape is right."""
        always = is_always_valid(contact_id, features, self._config)
        if len(self._effects) > REMEMBERED or len(self._plans) > REMEMBERED:
            self._effects.clear()
            self._plans.clear()
        keys = [(name, type(value)) for name, value in features.items()]
        plan = tuple(self._effects.get(key) or self._effects.setdefault(key, _effect(*key)) for key in keys)
        if always:
            self._plans[*features, *map(type, features.values())] = plan
        return plan
