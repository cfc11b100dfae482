"""Reading a group from a broker that stands still again and again: time-outs are errors, and never end the process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.local.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SECONDS = 30.0
# In a process of its own: an assertion of librdkafka ends it.
READER = """
import itertools, sys, time
from confluent_kafka.admin import AdminClient
from stream_scorer.errors import BrokerUnavailable
from stream_scorer.kafka.admin.group_members import members_of
from stream_scorer.kafka.consumer import log_reader
from stream_scorer.settings import load_settings

log_reader._CALL_S = 0.1
settings = load_settings()
admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers, "log_level": 0})
read, missed = 0, 0
end = time.monotonic() + float(sys.argv[1])
for timeout_s in itertools.cycle((0.01, 0.05, 0.1, 0.3, 0.5)):
    if time.monotonic() > end:
        break
    if members_of(admin, "group", "topic", timeout_s=timeout_s) is None:
        missed += 1
    try:
        log_reader.LogReader(settings, "group", timeout_s=timeout_s).commits("topic", 1)
        read += 1
    except BrokerUnavailable:
        missed += 1
print(read, missed)
"""


def test_a_time_out_does_not_end_the_process(private_kafka: Callable[..., EmbeddedKafka]) -> None:
    with private_kafka() as kafka:
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(SECONDS)],
            env={**os.environ, "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ended = threading.Event()
        threading.Thread(target=lambda: (reader.wait(), ended.set()), daemon=True).start()
        pauses = itertools.cycle((0.2, 0.7, 1.1, 0.4))
        while not ended.wait(0.15):
            kafka.pause()
            ended.wait(next(pauses))
            kafka.resume()
        printed, errors = reader.communicate()
    assert reader.returncode == 0, errors
    read, missed = map(int, printed.split())
    assert read > 10
    assert missed > 10
