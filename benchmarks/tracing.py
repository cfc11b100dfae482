"""``make bench-tracing``: what traces cost the worker, as ratios of one run. Prints Markdown.

The collector is a process of its own that throws away what it gets; its time on the shared cores is part of
what is measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from measurement import measure
from stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measurement import Run

LATENCY_MS: Final = 200
_WORKER: Final = (sys.executable, "-m", "stream_scorer", "run", "--from", "earliest")
_SAMPLED: Final = {"off": None, "sampled 0 %": "0", "sampled 1 %": "0.01", "sampled 100 %": "1"}
_SINK: Final = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Sink(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each")
    parser.add_argument("--contacts", type=int, default=100_000, help="contacts measured in each run")
    arguments = parser.parse_args()
    runs: dict[str, list[Run]] = {name: [] for name in _SAMPLED}
    with tempfile.TemporaryDirectory(prefix="stream-scorer-bench-") as folder, Stage.build(Path(folder)) as stage:
        stage.fill(2 * arguments.contacts)
        with _collector() as endpoint:
            for number in range(arguments.rounds):
                for name in list(_SAMPLED)[:: -1 if number % 2 else 1]:
                    environment = _environment(_SAMPLED[name], endpoint)
                    label = name.replace(" ", "-").replace("%", "percent")
                    run = measure(
                        stage, label, _WORKER, arguments.contacts, latency_ms=LATENCY_MS, environment=environment
                    )
                    runs[name].append(run)
                    print(f"round {number + 1}, {name}: {run.contacts_per_s:,.0f} contacts/s", flush=True)
    print("\n" + "\n".join(_table(runs)))


def _environment(ratio: str | None, endpoint: str) -> dict[str, str]:
    if ratio is None:
        return {}
    return {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{endpoint}/v1/traces",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }


def _table(runs: dict[str, list[Run]]) -> list[str]:
    base = median(run.contacts_per_s for run in runs["off"])
    lines = [
        "| traces | contacts/s, each round | of the speed without | CPU µs/contact | peak RSS MiB |",
        "|---|---|--:|--:|--:|",
    ]
    for name, measured in runs.items():
        rounds = ", ".join(f"{run.contacts_per_s:,.0f}" for run in measured)
        ratio = median(run.contacts_per_s for run in measured) / base
        cpu = median(run.cpu_us_per_contact for run in measured)
        lines.append(f"| {name} | {rounds} | {ratio:.2f} | {cpu:.1f} | {max(run.peak_mib for run in measured):.0f} |")
    return lines


@contextmanager
def _collector() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        try:
            yield f"http://127.0.0.1:{sink.stdout.readline().strip()}"
        finally:
            sink.kill()


if __name__ == "__main__":
    main()
