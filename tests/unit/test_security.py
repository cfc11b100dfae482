"""Checks of docs/asvs.md without another test, and of the test names on that page."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from stream_scorer.genesys import wire
from stream_scorer.redaction.credentials import Redactor
from stream_scorer.runtime.admin_server import AdminServer
from stream_scorer.settings import Settings
from stream_scorer.telemetry.logs import configure_logging

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "stream_scorer"
LOCKS = ("run.txt", "dev.txt", "build.txt")
PAGE = REPOSITORY / "docs" / "asvs.md"
FORGED = '\r\n{"level":"info","event":"forged"}\x1b[2J\u2028\u0085'


# --- the page


def points() -> list[list[str]]:
    """The rows of its tables of points, except those that are left to the operator."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## Left to")[0]
    lines = [line for line in text.splitlines() if line.startswith("| V")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named_tests(file: Path) -> set[str]:
    """``name`` and ``Class::name`` of every test in a file."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


def test_every_point_names_code_and_a_test_that_exist() -> None:
    rows = points()
    assert len(rows) > 30
    for number, what, evidence in rows:
        assert all(re.fullmatch(r"V\d+\.\d+\.\d+", one) for one in number.split(", ")), number
        assert what, number
        named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", evidence)
        assert named, f"{number} has no test"
        for file, test in named:
            assert test in named_tests(REPOSITORY / file), f"{number}: {file}::{test}"
        for file in re.findall(r"`((?!tests/)[\w/]+\.(?:py|txt))`", what + evidence):
            assert (PACKAGE / file).exists() or (REPOSITORY / file).exists(), f"{number}: {file}"


def test_no_point_stands_twice() -> None:
    numbers = [one for number, *_ in points() for one in number.split(", ")]
    assert sorted(numbers) == sorted(set(numbers))


# --- forbidden calls


def calls() -> list[tuple[str, ast.Call]]:
    """Every call in the package, with its place."""
    return [
        (f"{path.relative_to(REPOSITORY)}:{node.lineno}", node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_no_eval_pickle_or_shell_is_used() -> None:
    unsafe = re.compile(r"eval|exec|compile|__import__|(pickle|marshal|shelve|dill)\..*|os\.(system|popen)|yaml\.\w+")
    for place, call in calls():
        assert not unsafe.fullmatch(ast.unparse(call.func)), place
        keywords = {one.arg: ast.unparse(one.value) for one in call.keywords}
        assert keywords.get("shell", "False") == "False", place


def test_verification_of_certificates_is_switched_off_nowhere() -> None:
    off = ("verify=False", "CERT_NONE", "check_hostname=False", "_create_unverified_context", "assert_hostname=False")
    for path in PACKAGE.rglob("*.py"):
        code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
        assert not [word for word in off if word in code], path


def test_every_installed_package_is_locked_with_hashes() -> None:
    for name in LOCKS:
        lines = (REPOSITORY / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        wanted = [line for line in lines if line and not line.startswith("#")]
        assert wanted
        for line in wanted:
            assert re.match(r"[\w.\[\],-]+==\S+ ", line), line
            assert "--hash=sha256:" in line, line
            assert "://" not in line, line


def test_the_list_of_what_the_wheel_needs_is_complete_and_reproducible() -> None:
    lock = REPOSITORY / "requirements" / "run.txt"
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(lock), "--output-reproducible"]
    command.append("--no-validate")
    first, second = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2))
    assert first == second
    listed = {f"{one['name']}=={one['version']}" for one in json.loads(first)["components"]}
    assert listed == set(re.findall(r"^([\w.-]+==[\w.]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


# --- logs


@pytest.fixture
def logs() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def _as_it_was() -> object:
    root, urllib3 = logging.getLogger(), logging.getLogger("urllib3")
    kept = (root.handlers[:], root.level, urllib3.level)
    yield
    root.handlers[:] = kept[0]
    root.setLevel(kept[1])
    urllib3.setLevel(kept[2])
    structlog.reset_defaults()


@pytest.mark.usefixtures("_as_it_was")
def test_logged_values_cannot_inject_a_line(logs: io.StringIO) -> None:
    configure_logging(form="json", stream=logs)
    structlog.get_logger("ours").warning("rejected", contact_id=FORGED, headers=[(FORGED, FORGED.encode())])
    logging.getLogger("theirs").warning("broker error: %s", FORGED)
    written = logs.getvalue()
    assert len(written.splitlines()) == written.count("\n") == 2
    assert [json.loads(line)["level"] for line in written.splitlines()] == ["warning", "warning"]
    assert "\x1b" not in written


@pytest.mark.usefixtures("_as_it_was")
def test_headers_of_an_answer_are_not_logged(logs: io.StringIO) -> None:
    configure_logging(form="json", stream=logs)
    logging.getLogger("urllib3.connection").warning("Failed to parse headers: Authorization: Bearer t0ken")
    assert not logs.getvalue()


def test_foreign_texts_are_processed_in_linear_time() -> None:
    redact = Redactor("id", "s3cr3t/+of the test")
    redact.learn("t0ken" + "x/+" * 20)
    hostile = (b"<title" * 50_000, b"<title>" * 50_000, b'{"message":"' + b"bearer " * 50_000 + b'"}', b"[" * 300_000)
    began = time.process_time()
    for body in (*hostile, b'{"message":"bearer' + b" " * 300_000 + b'"}', b'{"code":"' + b"basic:=" * 40_000 + b'"}'):
        assert len(wire.parse_error(body, redact).text) < 700
    assert time.process_time() - began < 2.0


# --- the admin port


def test_the_admin_port_is_for_this_machine_unless_set() -> None:
    settings = Settings()
    assert settings.admin.host == "127.0.0.1"
    with AdminServer(
        settings.admin.host, 0, live=lambda: None, ready=lambda: None, metrics=lambda _: ("text/plain", b"")
    ) as server:
        socket.create_connection(("127.0.0.1", server.port), 5).close()
        for other in ("127.0.0.2", "::1"):
            with pytest.raises(OSError):  # noqa: PT011 - refused, or there is no such address
                socket.create_connection((other, server.port), 5)
