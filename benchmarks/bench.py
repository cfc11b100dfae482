"""``make bench``: the worker, everything on, against a bare hand-written loop, in one run on this machine.

Prints Markdown. How to read it, and what is equal for both: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from measurement import Run, measure
from stage import Stage

MEMORY_LIMIT_MIB: Final = 250
RATIO_AIM: Final = 0.8
_LIBRARIES: Final = ("confluent-kafka", "fastavro", "orjson", "requests")
_COMMANDS: Final = {
    "worker": (sys.executable, "-m", "stream_scorer", "run", "--from", "earliest"),
    "bare loop": (sys.executable, str(Path(__file__).with_name("bare_loop.py"))),
}


class Plan(NamedTuple):
    """How much is measured. ``waiting``: contacts on the topic before each run; ``measured``: those one run commits."""

    waiting: int
    measured: int
    rounds: int
    latencies_ms: tuple[int, ...]


FULL: Final = Plan(waiting=1_000_000, measured=250_000, rounds=3, latencies_ms=(200, 20))
QUICK: Final = Plan(waiting=150_000, measured=60_000, rounds=1, latencies_ms=(200, 20))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="less than a minute; the figures wobble more")
    parser.add_argument("--rounds", type=int, help="runs of each at each latency")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = plan._replace(rounds=arguments.rounds)
    with tempfile.TemporaryDirectory(prefix="stream-scorer-bench-") as folder, Stage.build(Path(folder)) as stage:
        stage.fill(plan.waiting)
        runs = {latency_ms: _alternate(stage, plan, latency_ms) for latency_ms in plan.latencies_ms}
    print("\n" + _report(plan, runs))
    return 0 if max(run.peak_mib for names in runs.values() for run in names["worker"]) <= MEMORY_LIMIT_MIB else 1


def _alternate(stage: Stage, plan: Plan, latency_ms: int) -> dict[str, list[Run]]:
    """Run both in turn, and every other round in the other order, so that load of the machine affects both alike."""
    runs: dict[str, list[Run]] = {name: [] for name in _COMMANDS}
    for number in range(plan.rounds):
        for name in list(_COMMANDS)[:: -1 if number % 2 else 1]:
            run = measure(stage, name, _COMMANDS[name], plan.measured, latency_ms=latency_ms)
            runs[name].append(run)
            print(f"{latency_ms} ms, round {number + 1}, {name}: {run.contacts_per_s:,.0f} contacts/s", flush=True)
    return runs


def _report(plan: Plan, runs: dict[int, dict[str, list[Run]]]) -> str:
    return "\n".join([*_machine(plan), "", *_table(runs), "", *_verdict(plan, runs)])


def _machine(plan: Plan) -> list[str]:
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    rounds = f"{plan.rounds} alternating round{'s' if plan.rounds > 1 else ''} of {plan.measured:,} contacts each"
    when, cores, machine = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", os.cpu_count(), platform.machine()
    return [
        f"{when}; {cores} cores, {machine}, Python {platform.python_version()}; {libraries}.",
        f"{plan.waiting:,} contacts waiting on 4 partitions; at each latency {rounds}; 8 requests in flight.",
    ]


def _table(runs: dict[int, dict[str, list[Run]]]) -> list[str]:
    lines = [
        "| API latency | | contacts/s, each round | median | CPU µs/contact | cores used | peak RSS MiB |",
        "|--:|---|---|--:|--:|--:|--:|",
    ]
    for latency_ms, names in runs.items():
        for name, measured in names.items():
            rounds = ", ".join(f"{run.contacts_per_s:,.0f}" for run in measured)
            lines.append(
                f"| {latency_ms} ms | {name} | {rounds} | {_median(measured, 'contacts_per_s'):,.0f} "
                f"| {_median(measured, 'cpu_us_per_contact'):.1f} | {_median(measured, 'cores'):.2f} "
                f"| {max(run.peak_mib for run in measured):.0f} |"
            )
    return lines


def _verdict(plan: Plan, runs: dict[int, dict[str, list[Run]]]) -> list[str]:
    lines = []
    for latency_ms, names in runs.items():
        ratio = _median(names["worker"], "contacts_per_s") / _median(names["bare loop"], "contacts_per_s")
        verdict = "reached" if ratio >= RATIO_AIM else "NOT reached"
        lines.append(f"- {latency_ms} ms: worker / bare loop = **{ratio:.2f}** (aim {RATIO_AIM}: {verdict})")
    peak_mib = max(run.peak_mib for names in runs.values() for run in names["worker"])
    verdict = "kept" if peak_mib <= MEMORY_LIMIT_MIB else "NOT KEPT"
    lines.append(
        f"- peak memory of the worker with {plan.waiting:,} contacts waiting: **{peak_mib:.0f} MiB** "
        f"(limit {MEMORY_LIMIT_MIB}: {verdict})"
    )
    return lines


def _median(runs: list[Run], field: str) -> float:
    return float(median(getattr(run, field) for run in runs))


if __name__ == "__main__":
    sys.exit(main())
