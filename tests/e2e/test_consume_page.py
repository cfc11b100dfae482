"""docs/consume.md: its Python program and its SQL, with scores of a worker."""

from __future__ import annotations

import csv
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from desk_harness import DeskHarness
from scoring_harness import contacts
from worker_harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from worker_harness import WorkerHarness

pytestmark = pytest.mark.kafka

CONTACTS = 12


def block(heading: str, language: str) -> str:
    """The first block of a language below a heading."""
    section = (ROOT / "docs" / "consume.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def stored_places(file: Path) -> list[str]:
    with closing(sqlite3.connect(file, timeout=30)) as database:
        tables = database.execute("SELECT name FROM sqlite_master").fetchall()
        return sorted(place for (place,) in database.execute("SELECT source FROM scores")) if tables else []


def read_to_the_ends(stage: WorkerHarness, group_id: str) -> bool:
    """Return whether a group has committed the last record of each partition, before the transaction markers."""
    places = [TopicPartition(stage.topics["scores"], number) for number in range(stage.partitions)]
    with stage.reader(group_id) as reader:
        committed = {place.partition: place.offset for place in reader.committed(places, timeout=30)}
    ends = stage.ends("scores")
    return all(committed[number] >= end - 1 for number, end in ends.items() if end)


def consume(stage: WorkerHarness, folder: Path, group_id: str, read_all: Callable[[], bool]) -> None:
    """Run the program of the page until it has read everything, then kill it."""
    program = block("Python", "python")
    for there, here in {
        "127.0.0.1:9092": stage.bootstrap_servers,
        '"my-program"': f'"{group_id}"',
        '["contact-scores"]': f'["{stage.topics["scores"]}"]',
    }.items():
        assert there in program
        program = program.replace(there, here)
    with (folder / "errors").open("wb") as errors:
        running = subprocess.Popen([sys.executable, "-c", program], cwd=folder, stderr=errors)
    try:

        def is_done() -> bool:
            assert running.poll() is None, (folder / "errors").read_text()
            return read_all()

        stage.wait(is_done, "the program to have read all scores")
    finally:
        running.kill()
        running.wait()


def test_the_programs_of_the_page(stage: WorkerHarness, tmp_path: Path) -> None:
    (tmp_path / "schemas").symlink_to(ROOT / "schemas")
    desk = DeskHarness(stage)
    worker = stage.start_ready()
    stage.produce(contacts(CONTACTS, stage.partitions))
    stage.wait_done(needs=worker)
    worker.stop()
    stored, exported = tmp_path / "scores.db", tmp_path / "scores.csv"
    done = desk.call("read", "scores", "--since", "24h", "--out", str(exported))
    assert done.returncode == 0, done.stderr
    with exported.open(newline="", encoding="utf-8") as file:
        head, *lines = list(csv.reader(file))
    places = sorted(line[head.index("headers.stream-scorer-source")] for line in lines)
    assert places

    first, second = (f"{stage.group_id}-{name}" for name in ("first", "second"))
    consume(stage, tmp_path, first, lambda: stored.exists() and stored_places(stored) == places)
    # Another group reads everything again and stores no duplicates.
    consume(stage, tmp_path, second, lambda: read_to_the_ends(stage, second))
    assert stored_places(stored) == places

    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE scores (" + ", ".join(f'"{name}" TEXT' for name in head) + ")")
        marks = ", ".join("?" for _ in head)
        database.executemany(f"INSERT INTO scores VALUES ({marks})", lines)  # noqa: S608 - question marks alone
        newest = database.execute(block("SQL", "sql")).fetchall()
    assert sorted(source for _, _, source in newest) == places
