"""Number of source files that one contact passes, from the consumer to the transaction: few enough to read at once.

A file counts if one of its functions is called with the contact, its record, its request or its outcome, or with text
or bytes that hold its id, or returns one of them. The code of 2026-11-24 passed 37, without retry topics.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from scoring_harness import contact
from worker_harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from worker_harness import WorkerHarness

MOST_FILES = 36

# Loaded by the worker's interpreter at startup. SIGUSR1 starts a recording, SIGUSR2 writes it.
RECORDER = """
import os, signal, sys, threading

seen = set()

CARRIERS = {
    *("SourceRecord", "Contact", "Request", "Answered", "Exchange", "Scored", "CommittableBatch", "OutRecord"),
    *("RequestAudit", "Results"),
}

def carries(value):
    if isinstance(value, (bytes, bytearray)):
        return b"the-second" in value
    if isinstance(value, str):
        return "the-second" in value
    if isinstance(value, (list, tuple)) and type(value).__name__ not in CARRIERS:
        return bool(value) and carries(value[0])
    return type(value).__name__ in CARRIERS

def profile(frame, event, argument):
    if event == "call":
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(carries(frame.f_locals.get(name)) for name in names):
            seen.add(code.co_filename)
    elif event == "return" and carries(argument):
        seen.add(frame.f_code.co_filename)

def write(*_):
    with open(os.environ["RECORDED"] + ".part", "w") as file:
        file.write("\\n".join(sorted(seen)))
    os.rename(os.environ["RECORDED"] + ".part", os.environ["RECORDED"])

signal.signal(signal.SIGUSR1, lambda *_: seen.clear())
signal.signal(signal.SIGUSR2, write)
threading.setprofile(profile)
sys.setprofile(profile)
"""


def test_one_contact_passes_few_files(stage: WorkerHarness, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(RECORDER, encoding="utf-8")
    recorded = tmp_path / "files.txt"
    stage.changes |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "RECORDED": str(recorded)}
    worker = stage.start_ready()
    stage.produce([contact("first")])
    stage.wait_done(needs=worker)  # token, model and producer are made
    worker.send(signal.SIGUSR1)
    stage.produce([contact("the-second")])
    stage.wait_done(needs=worker)
    worker.send(signal.SIGUSR2)
    stage.wait(recorded.exists, "the recording", needs=worker)
    package = ROOT / "stream_scorer"
    files = [file for file in recorded.read_text(encoding="utf-8").splitlines() if file.startswith(str(package))]
    passed = sorted(os.path.relpath(file, package) for file in files)
    print("\n".join(passed))  # noqa: T201 - shown if the test fails
    assert "scoring/worker.py" in passed
    assert len(passed) <= MOST_FILES
