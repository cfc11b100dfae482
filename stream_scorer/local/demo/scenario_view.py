"""Effect of a scenario on the demo: worker settings, display, and expected outcomes."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stream_scorer.core.scoring.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from stream_scorer.local.demo.contacts import Generated
    from stream_scorer.local.simulator import Scenario, Simulator

# A demo should take minutes: many small requests, so that every fault affects some, and shorter retry delays
# than in production.
WORKER_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "scoring.max_contacts": "100",
        "scoring.max_in_flight": "4",
        "genesys.timeout_s": "4",
        "genesys.token_timeout_s": "4",
        "genesys.max_retries": "2",
        "genesys.backoff_base_s": "1.5",
        "genesys.probe_interval_s": "1",
    }
)
_PROMISE: Final = "no contact may be lost or rejected because of it"
_PROMISE_BUT_FOR_SOME: Final = "no contact may be lost because of it, and only those that it always refuses rejected"


def worker_environment() -> dict[str, str]:
    """Return the environment variables of `WORKER_SETTINGS`."""
    return {f"STREAM_SCORER_{name.replace('.', '__').upper()}": value for name, value in WORKER_SETTINGS.items()}


def with_labels(records: Iterable[Generated], refuses: Callable[[str], bool]) -> Iterator[Generated]:
    """Mark valid records that must be rejected because the scenario refuses every request with them."""
    for record in records:
        if record.rejected_for is None and refuses(record.key.decode()):
            yield record._replace(rejected_for=Reason.REFUSED_BY_API)
        else:
            yield record


def introduction(scenario: Scenario) -> list[str]:
    """Return the lines shown before the scenario begins."""
    settings = ", ".join(f"{name} = {value}" for name, value in WORKER_SETTINGS.items())
    return [
        f"scenario {scenario.name}: {scenario.description}",
        f"worker settings for a short run: {settings}",
        _PROMISE if scenario.expect.refused is None else _PROMISE_BUT_FOR_SOME,
    ]


def scene(simulator: Simulator) -> str:
    """Return the current step of the scenario, in a few words."""
    state = simulator.playing()
    if state is None or (state.over and not state.playing):
        return "over"
    if state.elapsed_s is None:
        return "waits for the first request"
    return ", ".join(state.playing) or "nothing wrong just now"


def closing_line(simulator: Simulator) -> str | None:
    """Return the summary of the scenario; None without one."""
    state = simulator.playing()
    if state is None:
        return None
    counted = simulator.stats().requests
    answers = sum((Counter(counted.get(path, {})) for path in ("token", "score")), Counter[str]())
    statuses = ", ".join(f"{status}: {amount:,}" for status, amount in sorted(answers.items()))
    missed = f"; the contacts were done before these steps began: {', '.join(state.to_come)}" if state.to_come else ""
    return f"scenario {state.name}: answers of the simulator by status {statuses}{missed}"
