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

# A shell starts its background jobs with Ctrl-C ignored, and so would every program be that a test interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# So does nohup with SIGHUP.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_sessionstart() -> None:
    # Collection makes millions of objects and no garbage: without the collector it takes a third less time.
    gc.disable()


def pytest_collection_finish() -> None:
    # They live to the end, so no collection during the tests looks at them again.
    gc.freeze()
    gc.enable()
