"""`pip-audit` without a network: its requests are answered from a folder of OSV files.

    python tests/tools/offline_audit.py ADVISORIES [PIP_AUDIT_ARGUMENTS…]

ADVISORIES is a checkout of a database in the OSV format, such as github.com/pypa/advisory-database, with the advisories
of its date.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


def advisories_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The advisories of each package by its canonical name.

    Raises:
        SystemExit: there is none in this folder.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for file in [*folder.rglob("*.yaml"), *folder.rglob("*.json")]:
        advisory = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - all of it stays text
        if not isinstance(advisory, dict) or "withdrawn" in advisory:
            continue
        for name in {one["package"]["name"] for one in advisory.get("affected", ()) if _is_python(one)}:
            found.setdefault(canonicalize_name(name), []).append(advisory)
    if not found:
        raise SystemExit(f"{folder}: holds no advisory about a Python package")
    return found


def affects(advisory: dict[str, Any], name: str, version: str) -> bool:
    """Return whether an advisory is about this version: it lists it, or a range of versions holds it."""
    return any(
        version in one.get("versions", ()) or any(_holds(span, Version(version)) for span in one.get("ranges", ()))
        for one in advisory.get("affected", ())
        if _is_python(one) and canonicalize_name(one["package"]["name"]) == name
    )


def _is_python(affected: dict[str, Any]) -> bool:
    return bool(affected.get("package", {}).get("ecosystem") == "PyPI")


def _holds(span: dict[str, Any], version: Version) -> bool:
    """The events of a range in order: the last one at or below the version decides whether it is in."""
    if span.get("type") != "ECOSYSTEM":
        return False
    inside = False
    for event in span.get("events", ()):
        (kind, text) = next(iter(event.items()))
        try:
            at = Version(text)
        except InvalidVersion:
            return True  # undecidable, so reported for a manual check
        if kind == "last_affected":
            inside = inside and version <= at
        elif version >= at:
            inside = kind == "introduced"
    return inside


def main() -> int:
    """Run pip-audit beside a service that lives as long as it does; returns its exit code."""
    advisories = advisories_of(Path(sys.argv[1]))

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = canonicalize_name(asked["package"]["name"])
            vulns = [one for one in advisories.get(name, ()) if affects(one, name, asked["version"])]
            body = json.dumps({"vulns": vulns} if vulns else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--osv-url", url, *sys.argv[2:]]
        code = subprocess.run(command, check=False).returncode
        server.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
