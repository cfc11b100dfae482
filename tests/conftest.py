from __future__ import annotations

import signal

pytest_plugins = (
    "kafka_fixture",
    "registry_fixture",
    "secured_fixture",
    "receiver_fixture",
    "simulator_fixture",
    "support_behaviour_table",
    "support_worker",
    "support_campaign",
)

# A shell starts its background jobs with Ctrl-C ignored, and so would every program be that a test interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
