from __future__ import annotations

import gc
import os
import signal
from typing import Any, Final

from hypothesis import HealthCheck, settings

pytest_plugins = (
    "kafka_fixture",
    "registry_fixture",
    "secured_fixture",
    "receiver_fixture",
    "simulator_fixture",
    "support_behaviour_table",
    "worker_harness",
    "callbacks_harness",
)

# `make test` tries the same examples every time; `make fuzz` (``FUZZ_EFFORT``) tries others.
# Neither has a deadline: an example of milliseconds takes longer than 200 ms where other processes keep the cores busy.
BUSY: Final[dict[str, Any]] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, database=None, **BUSY)
settings.register_profile("random", derandomize=False, **BUSY)
settings.load_profile("random" if "FUZZ_EFFORT" in os.environ else "repeatable")

# A shell starts background jobs with SIGINT ignored, which the programs that a test interrupts would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# nohup does the same with SIGHUP.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_sessionstart() -> None:
    # Collection creates millions of objects and no garbage: without the garbage collector it is a third faster.
    gc.disable()


def pytest_collection_finish() -> None:
    # They live to the end: frozen, so that the garbage collector does not scan them during the tests.
    gc.freeze()
    gc.enable()
