# noqa: INP001 - a script of its own, no package
"""The containers' health check: exit 0 if the worker's ``/readyz`` returns 200, else 1 with its body.

    python healthy.py [PORT]

The port is that of ``stream-scorer run``: STREAM_SCORER_ADMIN__PORT, else 9464. The campaign worker has another one,
9465. With port 0 there is no admin port to check, and the container counts as healthy. It imports nothing of
the package, so that it costs a worker's container next to nothing, every ten seconds.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_S = 4


def main(arguments: list[str]) -> int:
    """Request /readyz, print the response, and return the exit code."""
    said = arguments[0] if arguments else os.environ.get("STREAM_SCORER_ADMIN__PORT") or "9464"
    try:
        port = int(said)
    except ValueError:
        sys.stdout.write(f"{said} is no port\n")
        return 1
    if port == 0:
        sys.stdout.write("the admin port is off\n")
        return 0
    admin = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        admin.request("GET", "/readyz")
        answer = admin.getresponse()
        said = answer.read(1000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"no answer at port {port}: {error}\n")
        return 1
    sys.stdout.write(f"{said}\n")
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
