"""Writer of the table of docs/internals/reliability.md from the results: ``python tests/chaos/table.py [RESULTS]``.

A line of the results is either one moment (its faults, their durations and the time to recovery) or a run.
"""

# ruff: noqa: T201 - what the command is for

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from effects import EFFECTS

ROOT = Path(__file__).parents[2]


def table(lines: list[dict[str, Any]]) -> str:
    """Return Markdown with a row for each fault and each run."""
    alone: dict[str, list[dict[str, Any]]] = defaultdict(list)
    together: dict[str, int] = defaultdict(int)
    for line in lines:
        for fault in line.get("faults", ()):
            together[fault] += 1
            if len(line["faults"]) == 1:
                alone[fault].append(line)
    rows = [
        "| fault | effect | tried | resumed after: median, worst (s) | billed again: worst | at risk: at most |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for fault in sorted(together):
        took = [line["recovered_s"] for line in alone[fault]]
        spent = [line["paid_again"] for line in alone[fault]]
        times = f"{median(took):.1f}, {max(took):.1f}" if took else "only with others"
        risk = f"{alone[fault][0]['allowed']:,}" if took else ""
        effect = EFFECTS.get(fault, "")
        rows.append(f"| {fault} | {effect} | {together[fault]} | {times} | {max(spent, default='')} | {risk} |")
    rows += ["", "| run | seed | contacts | billed again | violations |", "|---|---:|---:|---:|---|"]
    for line in lines:
        if "run" in line:
            found = ", ".join(line["violations"]) or "none"
            rows.append(f"| {line['run']} | {line['seed']} | {line['contacts']:,} | {line['paid_again']:,} | {found} |")
    return "\n".join(rows)


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "chaos-results.jsonl"
    print(table([json.loads(line) for line in given.read_text(encoding="utf-8").splitlines()]))
