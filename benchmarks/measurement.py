"""Measures a contestant from outside: what its group has committed and what its process has used, at the same time."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.client.config import reader_config, silent_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stage import Stage

_POLL_S: Final = 0.02
_CALL_S: Final = 10.0
_TIMEOUT_S: Final = 90.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Run(NamedTuple):
    """One contestant's figures, from its first commit to the last one measured; ``peak_mib`` since its start."""

    contacts: int
    contacts_per_s: float
    cpu_us_per_contact: float
    cores: float
    peak_mib: float


class _Sample(NamedTuple):
    """The committed contacts at a time, and the CPU time of the process until then."""

    at_s: float
    committed: int
    cpu_s: float


def measure(
    stage: Stage,
    name: str,
    command: Sequence[str],
    contacts: int,
    *,
    latency_ms: int,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Start a contestant in a group of its own, measure until it has committed so many contacts, and stop it.

    Steady state is what counts: from the first commit (start-up, joining the group and the first fetch are over
    by then) to the first commit that is ``contacts`` further.

    Raises:
        RuntimeError: the worker exited or stalled (with its last lines), or it sent contacts without need.
    """
    group_id = f"{name}-{time.time_ns()}"
    stage.simulator.reset()
    stage.simulator.configure(latency_ms=latency_ms)
    stage.simulator.reset()
    stage.simulator.configure(latency_ms=latency_ms)
    log = stage.folder / f"{name}.log"
    with _Offsets(stage, group_id) as offsets, log.open("wb") as output:
        given = {**stage.environment(group_id), **(environment or {})}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=given)
        try:
            first = _await(offsets, process, log, 1)
            last = _await(offsets, process, log, first.committed + contacts)
            peak_mib = _status_kib(process.pid, "VmHWM") / 1024
            process.terminate()
            process.wait(_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
        _check_paid(stage, name, offsets.committed())
    done, took_s, cpu_s = last.committed - first.committed, last.at_s - first.at_s, last.cpu_s - first.cpu_s
    return Run(done, done / took_s, cpu_s / done * 1e6, cpu_s / took_s, peak_mib)


def _await(offsets: _Offsets, process: subprocess.Popen[bytes], log: Path, committed: int) -> _Sample:
    """The first sample with so many contacts committed."""
    seen, give_up_at = 0, time.monotonic() + _TIMEOUT_S
    while process.poll() is None and time.monotonic() < give_up_at:
        now_committed = offsets.committed()
        if now_committed >= committed:
            return _Sample(time.monotonic(), now_committed, _cpu_s(process.pid))
        if now_committed > seen:
            seen, give_up_at = now_committed, time.monotonic() + _TIMEOUT_S
        time.sleep(_POLL_S)
    state = "stands still" if process.poll() is None else f"ended with {process.returncode}"
    last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise RuntimeError(f"{log.stem} {state} after {seen} contacts:\n{last_lines}")


def _check_paid(stage: Stage, name: str, committed: int) -> None:
    """No contact may be billed twice: billed are the committed contacts and those in the window at the end."""
    stats = stage.simulator.stats()
    window = stage.settings("check").scoring.max_uncommitted
    if stats.contacts_repeated or not committed <= stats.contacts_scored <= committed + window:
        raise RuntimeError(f"{name} committed {committed} contacts, but the simulator's account is {stats}")


class _Offsets:
    """The committed offsets of a group that began at 0, added up; a transaction that is still open does not count."""

    def __init__(self, stage: Stage, group_id: str) -> None:
        settings = stage.settings(group_id)
        # read_committed would wait for the end of every open transaction and sample only the times in between.
        config = {**reader_config(settings, group_id, logger=silent_logger()), "isolation.level": "read_uncommitted"}
        self._reader = Consumer(config)
        partitions = check_topics(settings, [settings.topics.features])[settings.topics.features]
        self._partitions = [TopicPartition(settings.topics.features, number) for number in range(partitions)]

    def committed(self) -> int:
        try:
            answers = self._reader.committed(self._partitions, _CALL_S)
        except KafkaException:  # the coordinator of a new cluster is not available at once; the caller retries
            return 0
        return sum(answer.offset for answer in answers if answer.offset > 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()


def _cpu_s(pid: int) -> float:
    """User and system time of all threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _status_kib(pid: int, name: str) -> int:
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    values: Mapping[str, str] = {key: value for key, _, value in lines}
    return int(values[name].split()[0])
