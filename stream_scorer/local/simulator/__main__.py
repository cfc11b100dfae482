"""The process that `Simulator` starts: takes its order from standard input and ends when that is closed.

The order is one line of JSON, ``{"fd": the bound socket, "config": …}``; the answer is the line ``ready``. However the
parent ends, its end of the pipe is closed with it, so no simulator outlives its test.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import threading

from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.server import SimulatorServer


def main() -> None:
    """Serves until the parent lets go."""
    order = json.loads(sys.stdin.buffer.readline())
    listener = socket.socket(fileno=order["fd"])
    server = SimulatorServer(SimulatorConfig.model_validate(order["config"]), on_ready=_report_ready)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()  # what is loaded by now stays: no collection need look at it again
    gc.set_threshold(100_000)  # a request makes thousands of objects, none of them in a cycle
    server.run(sockets=[listener])


def _report_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    # os.read, not sys.stdin: a thread that holds its lock cannot be ended by the interpreter.
    while os.read(0, 4096):
        pass
    os._exit(0)  # there is nothing to save, and no client to be polite to


if __name__ == "__main__":
    main()
