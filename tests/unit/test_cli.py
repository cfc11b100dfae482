from __future__ import annotations

import importlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import confluent_kafka
import pytest
import structlog
import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import ConcurrentModificationException, IllegalStateException
from confluent_kafka.error import ConsumeError, ProduceError

from stream_scorer import __version__, cli
from stream_scorer.cli import main
from stream_scorer.core.scoring.api_response import Exchange
from stream_scorer.core.scoring.model_check import ModelCheck, ModelConfirmed, ModelRefused, ModelUnavailable
from stream_scorer.errors import BrokerUnavailable, CheckFailed, SettingsError, StreamScorerError
from stream_scorer.genesys.oauth import Token
from stream_scorer.kafka.admin.output_topics import OutputsReport

SECRET = "s3cr3t-value"
EXCHANGE = Exchange(1, 2, 1.0, 400)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("STREAM_SCORER_", "GENESYS_")):
            monkeypatch.delenv(name)


@pytest.fixture
def _complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESYS_CLIENT_ID", "id")
    monkeypatch.setenv("GENESYS_CLIENT_SECRET", SECRET)
    monkeypatch.setenv("GENESYS_MODEL_ID", "model")


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_topics(*_: object) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("stream_scorer.cli.topics"), "create_topics", create_topics)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stream-scorer {__version__}\n"


def test_every_command_has_a_help_and_the_list_has_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in cli._Commands.lazy:
        assert name in listed
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"Usage: stream-scorer {name}" in shown
        assert "--install-completion" not in shown


def leaf_names() -> list[list[str]]:
    """Every command with its group."""
    found = []
    for name in cli._Commands.lazy:
        root = typer.main.get_command(cli.app)
        _, command, _ = root.resolve_command(typer.Context(root), [name])  # type: ignore[attr-defined]
        below = command.list_commands(typer.Context(command)) if hasattr(command, "list_commands") else []
        found += [[name, one] for one in below] or [[name]]
    return found


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("names", leaf_names(), ids=" ".join)
def test_no_paragraph_of_a_help_is_broken(
    names: list[str], width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main([*names, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Exit codes: 0 done" in shown
    assert "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS" in shown
    lines = shown.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(" Usage:")) + 1
    end = next(number for number, line in enumerate(lines) if line.startswith("╭"))
    for line, following in pairwise(line.strip() for line in lines[begin:end]):
        if line and following:
            assert len(line) + len(following.split()[0]) + 3 > width, f"{line!r} is followed by {following!r}"


@pytest.mark.parametrize("names", [[], *leaf_names()], ids=" ".join)
def test_no_help_shows_the_type_of_a_flag_or_a_type_of_python(
    names: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*names, "--help"]) == 0
    shown = capsys.readouterr().out
    assert not re.search(r"<(bool|str|int|float|path|file|list\b)[^>]*>", shown)


BASH_COMPLETION = """
source <(stream-scorer --show-completion)
complete -p stream-scorer
while IFS='|' read -ra COMP_WORDS; do
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _stream_scorer_completion stream-scorer
  echo "${COMPREPLY[*]}"
done
"""
COMPLETIONS = {
    "stream-scorer|re": {"reconcile", "receive", "read", "rejected", "review"},
    "stream-scorer|topics|create|--re": {"--replication-factor", "--retention"},
    "stream-scorer|topics|create|--only|s": {"scoring"},
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_values(tmp_path: Path) -> None:
    """Through the script that `--show-completion` prints, although commands are imported when they are called."""
    commands = Path(sys.executable).parent
    environ = {"PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    lines = "".join(f"{line}\n" for line in COMPLETIONS)
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH_COMPLETION],
        env=environ,
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    registered, *offered = done.stdout.splitlines()
    assert registered.endswith("-F _stream_scorer_completion stream-scorer"), done.stderr
    assert [set(line.split()) for line in offered] == list(COMPLETIONS.values()), done.stderr


# Without these shells: their scripts, and what they call for each line.
OTHER_SHELLS = {
    "zsh": ("#compdef stream-scorer", {}, '"reconcile":"Prove that'),
    "fish": ("complete --command stream-scorer ", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}, "reconcile\tProve that"),
}


@pytest.mark.parametrize("shell", OTHER_SHELLS)
def test_another_shell_than_the_present_one_completes(shell: str, tmp_path: Path) -> None:
    first_line, variables, offered = OTHER_SHELLS[shell]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def printed(*arguments: str, **more: str) -> str:
        command = [sys.executable, "-m", "stream_scorer", *arguments]
        return subprocess.run(
            command, env={**environ, **more}, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    script = printed("--show-completion", shell)
    assert script.startswith(first_line)
    assert f"_STREAM_SCORER_COMPLETE=complete_{shell}" in script
    answer = {"_STREAM_SCORER_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "stream-scorer re", **variables}
    assert offered in printed(**answer)
    assert "completion installed" in printed("--install-completion", shell)
    assert any(script.strip() in path.read_text() for path in tmp_path.rglob("*stream-scorer*"))


def test_an_unknown_shell_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["tcsh"], ["zsh", "status"]):
        assert main(["--show-completion", *arguments]) == 2
        line = "stream-scorer: --show-completion takes no argument, or one of bash, zsh, fish\n"
        assert capsys.readouterr() == ("", line)


def test_the_list_imports_no_command() -> None:
    program = (
        "import sys; from stream_scorer.cli import main; assert main(['--help']) == 0;"
        "heavy = {'confluent_kafka', 'requests', 'opentelemetry.sdk', 'uvicorn', 'jgo', 'fastavro'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["topic"], "No such command 'topic'. Did you mean 'topics'?"),
        (["topics", "make"], "No such command 'make'."),
        (["topics", "create", "--bogus"], "No such option: --bogus"),
        (["topics", "create", "--config"], "--config"),
        (["config", "check", "--config", "/no/such/file"], "cannot read the settings file /no/such/file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("stream-scorer: ")
    assert part in line


def test_no_command_shows_the_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert "Usage: stream-scorer" in said.out + said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokerUnavailable("no answer"), 1),
        (CheckFailed("2 are missing"), 1),
        (SettingsError("kafka.x is wrong"), 2),
    ],
)
def test_a_scorer_error_is_one_line_with_its_exit_code(
    error: StreamScorerError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error, monkeypatch)
    assert main(["topics", "create"]) == code
    assert capsys.readouterr().err == f"stream-scorer: {error}\n"


@pytest.mark.parametrize("command", ["run", "callbacks"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BrokerUnavailable("no answer from Kafka"), "no answer from Kafka"),
        (ZeroDivisionError("hush"), "unexpected ZeroDivisionError in stream_scorer.cli.COMMAND line "),
    ],
)
@pytest.mark.usefixtures("_complete")
def test_a_fatal_error_is_a_log_event_and_the_last_line(
    command: str,
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def await_topics(*_: object) -> None:
        raise error.with_traceback(None)

    monkeypatch.setenv("STREAM_SCORER_CALLBACKS__TARGET", "log")
    monkeypatch.setattr(importlib.import_module(f"stream_scorer.cli.{command}"), "wait_for_topics", await_topics)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    try:
        assert main([command]) == 1
    finally:
        structlog.reset_defaults()
        root.setLevel(logging.WARNING)
    *_, line, last = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    said = said.replace("COMMAND", command)
    assert (event["event"], event["level"], event["detail"].rstrip("0123456789")) == ("stopped", "error", said)
    assert last.startswith(f"stream-scorer: {said}")
    assert "hush" not in line + last  # the text of a foreign exception may contain secrets


@pytest.mark.parametrize("command", ["run", "callbacks"])
@pytest.mark.parametrize(
    "name", ["OTEL_PYTHON_METER_PROVIDER", "OTEL_METRICS_EXEMPLAR_FILTER", "OTEL_BSP_MAX_QUEUE_SIZE"]
)
@pytest.mark.usefixtures("_complete")
def test_variables_of_opentelemetry_are_checked_before_the_brokers_are_waited_for(
    command: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def await_topics(*_: object) -> None:
        raise BrokerUnavailable("no answer from Kafka")

    monkeypatch.setenv("STREAM_SCORER_CALLBACKS__TARGET", "log")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv(name, "bogus")
    monkeypatch.setattr(importlib.import_module(f"stream_scorer.cli.{command}"), "wait_for_topics", await_topics)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    try:
        assert main([command]) == 2
    finally:
        structlog.reset_defaults()
        root.setLevel(logging.WARNING)
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"stream-scorer: {name}: bogus ")


@pytest.mark.parametrize(
    ("region", "shown"),
    [
        ("https://user:hunter2@api.mypurecloud.de", "stream-scorer: genesys.region is no region"),
        ("user:hunter2@mypurecloud.de", "stream-scorer: genesys.region is no region"),
        ("mypurecloud.dee", "stream-scorer: genesys.region 'mypurecloud.dee' is no region"),
        ("m\udcff", "stream-scorer: genesys.region must be valid Unicode, not 'm\\udcff' (from "),
    ],
)
@pytest.mark.usefixtures("_complete")
def test_a_region_is_shown_unless_it_is_a_url(
    region: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAM_SCORER_GENESYS__REGION", region)
    assert main(["config", "check"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(shown)
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)),
            1,
            "the Kafka client: .*; ask the cluster's administrator for the right",
        ),
        (ProduceError(KafkaError(KafkaError._STATE)), 1, "the Kafka client: Local: Erroneous state"),
        (ConsumeError(KafkaError(KafkaError._INVALID_ARG)), 2, "the Kafka client: .*; check kafka.properties"),
        (KafkaException("hush"), 1, "the Kafka client: the client has raised an error without a code"),
        (ConcurrentModificationException("hush"), 1, "unexpected ConcurrentModificationException in stream_scorer"),
        (IllegalStateException("hush"), 1, "unexpected IllegalStateException in stream_scorer"),
        (BaseException("hush"), 1, "unexpected BaseException in stream_scorer"),
        (GeneratorExit("hush"), 1, "unexpected GeneratorExit in stream_scorer"),
    ],
)
def test_every_error_that_reaches_the_top_is_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error, monkeypatch)
    assert main(["topics", "create"]) == code
    shown = capsys.readouterr().err
    assert re.match(f"stream-scorer: {said}", shown)
    assert shown.count("\n") == 1
    assert "hush" not in shown


def test_every_exception_of_the_kafka_client_is_caught_at_the_top() -> None:
    kinds = [kind for kind in vars(confluent_kafka).values() if isinstance(kind, type)]
    raised = {kind for kind in kinds if issubclass(kind, BaseException)}
    assert KafkaException in raised
    assert all(issubclass(kind, KafkaException | RuntimeError) for kind in raised)
    assert not issubclass(KafkaError, BaseException)  # an exception of a callback needs a function


THREADS = {
    "a thread": "threading.Thread(target=lambda: 1 / 0, name='x').start()",
    "a destructor": "type('X', (), {'__del__': lambda self: 1 / 0})()",
    "a log line": "logging.getLogger('theirs').warning('%d', 'hush')",
    "an exception that is logged": "logging.getLogger('theirs').error('failed', exc_info=ValueError('hush'))",
    "the end": "atexit.register(lambda: 1 / 0)",
}


@pytest.mark.parametrize("where", THREADS)
def test_a_process_prints_no_traceback(where: str) -> None:
    program = (
        f"import atexit, logging, sys, threading\nfrom stream_scorer.__main__ import main\nmain()\n{THREADS[where]}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert done.returncode == 0


def test_a_bug_is_one_line_and_debug_shows_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ZeroDivisionError("division by zero"), monkeypatch)
    assert main(["topics", "create"]) == 1
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"stream-scorer: unexpected ZeroDivisionError in stream_scorer\.cli\.topics line \d+;"
        r" `stream-scorer --debug …` shows more\n",
        line,
    )
    assert main(["--debug", "topics", "create"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith(line)


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(ModuleNotFoundError("No module named 'jgo.api'", name="jgo.api"), monkeypatch)
    assert main(["topics", "create"]) == 1
    assert capsys.readouterr().err == (
        "stream-scorer: this command needs the package jgo.api: pip install 'WHEEL[local]', where WHEEL is the file"
        " stream_scorer-….whl of this version (the image: stream-scorer-local)\n"
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupt_is_quiet(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error, monkeypatch)
    assert main(["topics", "create"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_command_may_return_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(typer.Exit(3), monkeypatch)
    assert main(["topics", "create"]) == 3


# --- config check


@pytest.mark.usefixtures("_complete")
def test_config_check_prints_the_effective_settings_as_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scorer.toml"
    file.write_text('[scoring]\nlinger_ms = 50\n[model.features."the age"]\ntype = "integer"\nchoices = [1, 2]\n')
    monkeypatch.setenv("STREAM_SCORER_KAFKA__GROUP_ID", "mine")
    assert main(["config", "check", "--all", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    effective = tomllib.loads(out)
    assert effective["scoring"]["linger_ms"] == 50
    assert effective["kafka"]["group_id"] == "mine"
    assert effective["callbacks"]["retry_delays_s"] == [60, 600, 3600, 21600]
    assert effective["model"]["features"] == {"the age": {"type": "integer", "choices": [1, 2]}}
    assert f"linger_ms = 50  # {file}" in out
    assert 'group_id = "mine"  # STREAM_SCORER_KAFKA__GROUP_ID' in out
    assert "# model_version is not set" in out
    assert out.splitlines()[-1] == "# ✓ settings: complete"


@pytest.mark.usefixtures("_complete")
def test_config_check_ends_with_its_verdict_behind_the_settings_that_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them are about a hundred lines, and the verdict stood in none."""
    file = tmp_path / "scorer.toml"
    file.write_text('[scoring]\nlinger_ms = 50\n[model.features."the age"]\ntype = "integer"\n')
    monkeypatch.setenv("STREAM_SCORER_KAFKA__GROUP_ID", "mine")
    assert main(["config", "check", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    effective = tomllib.loads(out)
    assert set(effective["genesys"]) == {"client_id", "client_secret", "model_id"}
    del effective["genesys"]
    features = {"the age": {"type": "integer"}}
    assert effective == {"kafka": {"group_id": "mine"}, "scoring": {"linger_ms": 50}, "model": {"features": features}}
    assert f"linger_ms = 50  # {file}" in out
    assert out.splitlines()[-1] == "# ✓ settings: complete (--all prints the defaults, too)"
    assert main(["config", "check", "--all", "--score", "contacts.csv"]) == 2


@pytest.mark.usefixtures("_complete")
def test_config_check_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret_properties = {
        "sasl.password": SECRET,
        "ssl.key.password": SECRET,
        "sasl.oauthbearer.client.secret": SECRET,
        "sasl.oauthbearer.config": SECRET,
        "sasl.oauthbearer.extensions": f"tenant={SECRET}",
        "sasl.oauthbearer.assertion.private.key.passphrase": SECRET,
    }
    monkeypatch.setenv("STREAM_SCORER_KAFKA__PROPERTIES", json.dumps({**secret_properties, "client.rack": "eu-1"}))
    file = tmp_path / "scorer.toml"
    url = f"https://u:{SECRET}@hooks.example/{SECRET}?key={SECRET}"
    file.write_text(f'[callbacks]\nsecret = "{SECRET}"\nurl = "{url}"\n')
    assert main(["config", "check", "--config", str(file)]) == 0
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    effective = tomllib.loads(said.out)
    assert effective["genesys"]["client_secret"] == effective["callbacks"]["secret"] == "***"
    assert effective["kafka"]["properties"] == {**dict.fromkeys(secret_properties, "***"), "client.rack": "eu-1"}
    assert effective["callbacks"]["url"] == "https://hooks.example/***?***"


@pytest.mark.usefixtures("_complete")
def test_config_check_warns_of_probable_mistakes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAM_SCORER_KAFKA__PROPERTIES", '{"acks": "1"}')
    monkeypatch.setenv("STREAM_SCORER_SCORING__MAX_UNCOMMITTED", "1000")
    assert main(["config", "check"]) == 0
    window, acks, model = capsys.readouterr().err.splitlines()
    assert window.startswith("warning: scoring.max_uncommitted (1000) holds 1 full batches")
    assert acks == "warning: kafka.properties: acks is not used, stream-scorer sets it itself"
    assert model == "warning: model.features is not set: the tutorial's model is used"


@pytest.mark.usefixtures("_complete")
def test_config_check_notes_service_links(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STREAM_SCORER_PORT", "tcp://10.0.0.1:80")
    assert main(["config", "check"]) == 0
    assert "warning: STREAM_SCORER_PORT in the environment: ignored as a service link" in capsys.readouterr().err


def test_config_check_names_every_missing_api_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split()[1] for line in said.err.splitlines()] == [
        "genesys.client_id",
        "genesys.client_secret",
        "genesys.model_id",
    ]


@pytest.mark.usefixtures("_complete")
@pytest.mark.parametrize(
    ("result", "code", "line"),
    [
        (ModelConfirmed(EXCHANGE), 0, "# ✓ model: model model: confirmed (HTTP 400 to a request without contacts)"),
        (ModelRefused(EXCHANGE, "check the client"), 1, "stream-scorer: check the client"),
        (ModelUnavailable(EXCHANGE, "HTTP 503"), 1, "stream-scorer: token and model are not confirmed: HTTP 503"),
    ],
)
def test_config_check_with_connect_checks_token_and_model(
    result: ModelCheck, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("stream_scorer.cli.connection_check")
    monkeypatch.setattr(module.ClusterAdmin, "cluster_id", lambda *_: "abc")
    monkeypatch.setattr(module, "check_topics", lambda *_, **__: {"t": 3})
    monkeypatch.setattr(module, "existing_topics", lambda *_: ("decisions",))
    monkeypatch.setattr(module, "decisions_shortage", lambda *_: None)
    monkeypatch.setattr(module, "denied_message", lambda *_: None)
    monkeypatch.setattr(module, "check_outputs", lambda *_: OutputsReport(None, None))
    monkeypatch.setattr(module, "check_retry_retention", lambda *_: None)
    monkeypatch.setattr("stream_scorer.genesys.client.ScoringClient.check_login", lambda _: Token("x", 1.0))
    monkeypatch.setattr("stream_scorer.genesys.client.ScoringClient.check", lambda _: result)
    assert main(["config", "check", "--connect"]) == code
    said = capsys.readouterr()
    assert "# topic t: 3 partitions" in said.out
    assert said.out.splitlines()[-1] == "# - endpoint: not checked: callbacks.url is not set"
    lines = (said.out if code == 0 else said.err).splitlines()
    assert lines[-2 if code == 0 else -1] == line


@pytest.mark.usefixtures("_complete")
@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("STREAM_SCORER_SCHEMA_REGISTRY__PROPERTIES", '{"timeout": 1}', "and schema_registry.url is not: no registry"),
        ("STREAM_SCORER_KAFKA__PROPERTIES", '{"no.such": 1}', 'No such configuration property: "no.such"'),
        ("STREAM_SCORER_SCORING__REVOKE_WAIT_S", "200", "scoring.revoke_wait_s (200 s) must be at most 100 s"),
    ],
)
def test_config_check_rejects_what_run_rejects(
    name: str, value: str, part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["config", "check"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


@pytest.mark.usefixtures("_complete")
def test_config_check_refuses_the_opentelemetry_variables_that_run_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "bogus")
    assert main(["config", "check"]) == 2
    assert capsys.readouterr().err.startswith("stream-scorer: OTEL_TRACES_EXPORTER: bogus is unknown")
