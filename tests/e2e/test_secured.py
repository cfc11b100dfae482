"""Programs on a Kafka with authentication and ACLs, with exactly the rights of `kafka.admin.acls`."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scoring_harness import wait_until
from secured_fixture import AUDIENCE
from support_certificates import token_key, token_server
from support_secured import Ground

from stream_scorer.errors import BrokerRefused, SettingsError
from stream_scorer.kafka.admin import acls
from stream_scorer.kafka.admin.acls import Permission
from stream_scorer.kafka.admin.topics import check_topics, create_topics
from stream_scorer.kafka.client.config import check_properties
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from secured_fixture import SecuredKafka

    from stream_scorer.local.simulator import Simulator

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
SECRET = "s3cr3t of the tests"


@pytest.fixture
def ground(secured: SecuredKafka, tmp_path: Path, simulator: Simulator) -> Iterator[Ground]:
    made = Ground(secured, tmp_path)
    simulator.configure(quota=1_000_000)
    made.environment |= simulator.environment()
    yield made
    made.kill_all()


@pytest.fixture
def token_url(secured: SecuredKafka) -> Iterator[str]:
    with token_server(token_key(secured.folder), AUDIENCE, secret=SECRET) as url:
        yield url


def contacts_file(folder: Path, number: int) -> str:
    rows = [f"C-{n},{n % 9},210.5,12,retired" for n in range(number)]
    file = folder / "contacts.csv"
    head = "contact_id,previous_calls,avg_handle_time,last_contact_days,segment_id"
    file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return str(file)


def test_every_program_does_its_work_with_the_least_rights(ground: Ground, token_url: str) -> None:
    name, number = ground.name, 60
    root = ground.settings(ground.as_root())
    ground.scram(f"maker-{name}", f"scorer-{name}", f"judge-{name}")
    ground.grant(
        {
            f"User:maker-{name}": acls.creating_rights(root),
            f"User:loader-{name}": acls.producing_rights(root),
            f"User:scorer-{name}": acls.scoring_rights(root),
            f"User:CN=caller-{name}": acls.callback_rights(root),
            f"User:judge-{name}": {*acls.reconciling_rights(root), *acls.reconciling_callbacks_rights(root)},
        }
    )
    made = ground.command(ground.as_scram(f"maker-{name}"), "topics", "create")
    # The contacts' retry topics have their default names, so another test may have made them.
    assert (made.code, made.out.count("created") + made.out.count("existing")) == (0, 12), made
    loader = ground.as_token(f"loader-{name}", token_url, SECRET)
    loaded = ground.command(loader, "produce", contacts_file(ground.folder, number))
    assert loaded.code == 0, loaded
    scorer = ground.start(ground.as_scram(f"scorer-{name}"), "run")
    caller = ground.start(ground.as_certificate(f"caller-{name}", "the key's password"), "callbacks")
    judge = ground.as_scram(f"judge-{name}")

    def all_done() -> Any:
        assert scorer.running, scorer.log()
        assert caller.running, caller.log()
        ended = ground.command(judge, "reconcile", "--json")
        found = json.loads(ended.out or "{}")
        totals = found.get("totals", {"scored": 0, "review": 0})  # there are none before the scorer's first commit
        done = ended.code == 0 and totals["scored"] + totals["review"] == number
        return done and (callbacks := found["callbacks"]) and callbacks["totals"]["delivered"] > 0 and found

    wait_until(all_done, lambda: scorer.log() + caller.log())
    seen = ground.command(judge, "status", "--json")
    assert seen.code == 0, seen
    assert {group["loop"] for group in json.loads(seen.out)["groups"]} == {"scoring", "planner", "deliverer"}
    assert (scorer.stop(), caller.stop()) == (0, 0)
    for log in (scorer.log(), caller.log()):
        assert "password of" not in log
        assert "the key's password" not in log


def test_a_record_is_read_with_a_right_on_its_topic_and_none_on_a_group(ground: Ground) -> None:
    name = ground.name
    create_topics(ground.settings(ground.as_root()))
    loaded = ground.command(ground.as_root(), "produce", contacts_file(ground.folder, 3))
    assert loaded.code == 0, loaded
    user = f"reader-{name}"
    ground.scram(user)
    ground.grant({f"User:{user}": [Permission("Read", "topic", f"features-{name}")]})
    reader = ground.as_scram(user)
    shown = ground.command(reader, "read", "features", "C-1")
    assert (shown.code, shown.errors) == (0, ""), shown
    assert json.loads(shown.out)["value"]["contact_id"] == "C-1"
    denied = ground.command(reader, "read", "scores")
    assert denied.code == 1
    assert f"denies User:{user}: Read on topic scores-{name};" in denied.line


def each_missing(ground: Ground, command: str, needed: tuple[Permission, ...]) -> None:
    """Start the program once for each required right as a user without it, and read its error line."""
    create_topics(ground.settings(ground.as_root()))
    users = {f"{command}-{number}-{ground.name}": right for number, right in enumerate(needed)}
    ground.scram(*users)
    ground.grant({f"User:{user}": [one for one in needed if one != right] for user, right in users.items()})
    started = {user: ground.start(ground.as_scram(user), command) for user in users}
    for user, right in users.items():
        code = started[user].exit_code()
        [line] = started[user].errors()
        assert code == 1
        if right.resource == "group":  # reading the ACLs of a group is unsafe: see kafka.admin.acls
            assert f"User:{user}" in line, line
            assert f"on group {right.name}" in line, line
            continue
        assert line.startswith(f"stream-scorer: Kafka at localhost:{ground.secured.ports['SCRAM']} denies User:{user}:")
        assert f": {right};" in line, line


@pytest.mark.slow
def test_run_names_each_missing_right_at_its_start(ground: Ground) -> None:
    each_missing(ground, "run", acls.scoring_rights(ground.settings(ground.as_root())))


@pytest.mark.slow
def test_callbacks_names_each_missing_right_at_its_start(ground: Ground) -> None:
    each_missing(ground, "callbacks", acls.callback_rights(ground.settings(ground.as_root())))


def test_the_commands_name_the_missing_right(ground: Ground, token_url: str) -> None:
    """Without any right no topic is visible: the error is about the missing right, not about the topics."""
    name = ground.name
    root = ground.settings(ground.as_root())
    ground.scram(f"unprivileged-{name}")
    unprivileged = ground.as_scram(f"unprivileged-{name}")
    made = ground.command(unprivileged, "topics", "create")
    assert made.code == 1
    assert f"denies User:unprivileged-{name}: Create on topic " in made.line
    create_topics(root)
    loaded = ground.command(
        ground.as_token(f"loader-{name}", token_url, SECRET), "produce", contacts_file(ground.folder, 1)
    )
    assert loaded.code == 1
    assert f"denies User:loader-{name}: Write on topic features-{name};" in loaded.line
    seen = ground.command(unprivileged, "status")
    assert seen.code == 1
    assert f"denies User:unprivileged-{name}: Describe on topic features-{name};" in seen.line
    judged = ground.command(ground.as_certificate(f"judge-{name}"), "reconcile")
    assert judged.code == 1
    assert f"Read on topic features-{name}, Read on topic scores-{name}, " in judged.line
    assert f"denies the subject of ssl.certificate.location {ground.secured.folder}/judge-{name}.pem: " in judged.line


def test_a_right_revoked_at_run_time(ground: Ground) -> None:
    root = ground.settings(ground.as_root())
    create_topics(root)
    user = f"scorer-{ground.name}"
    ground.scram(user)
    ground.grant({f"User:{user}": acls.scoring_rights(root)})
    worker = ground.start(ground.as_scram(user), "run")
    wait_until(worker.ready, worker.log)
    write = Permission("Write", "topic", root.topics.scores)
    ground.take(f"User:{user}", write)
    assert ground.command(ground.as_root(), "produce", contacts_file(ground.folder, 20)).code == 0
    wait_until(lambda: str(write) in worker.why_not_ready(), worker.log)
    assert f"denies User:{user}: {write};" in worker.why_not_ready()
    ground.grant({f"User:{user}": [write]})
    wait_until(worker.ready, worker.log)
    ground.take(f"User:{user}", Permission("Read", "topic", root.topics.features))
    assert worker.exit_code() == 1
    [line] = worker.errors()
    assert f"denies User:{user}: Read on topic {root.topics.features};" in line
    assert ground.command(ground.as_root(), "reconcile").code == 0


def test_failed_authentication_is_reported_immediately(ground: Ground, token_url: str) -> None:
    """Within seconds, in one line, without the secret: not as a time-out."""
    name = f"someone-{ground.name}"
    ground.scram(name)
    good = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": name}
    password = {"sasl.password": f"password of {name}"}
    wrong = "this is not the password"
    cases = [
        (ground.connected("SCRAM", good | {"sasl.password": wrong}), "invalid credentials"),
        (ground.connected("SCRAM", good | password, host="127.0.0.1"), "the host name in kafka.bootstrap_servers"),
        (ground.connected("SCRAM", good | password | {"ssl.ca.location": "probe"}), "certificate verify failed"),
        (ground.connected("CERTIFICATE", {"security.protocol": "SSL"}), "certificate required"),
        (ground.as_token(name, token_url, wrong), "Failed to acquire SASL OAUTHBEARER token"),
    ]
    for environment, reason in cases:
        began = time.monotonic()
        with pytest.raises(BrokerRefused) as caught:
            check_topics(ground.settings(environment), ["any"], timeout_s=60)
        line = str(caught.value)
        assert time.monotonic() - began < 30, line
        assert line.startswith("authentication with Kafka at "), line
        assert reason in line
        assert "\n" not in line
        assert wrong not in line
        assert base64.b64encode(f"{name}:{wrong}".encode()).decode() not in line


def test_a_wrong_key_password_is_a_settings_error(ground: Ground) -> None:
    environment = ground.as_certificate(f"locked-{ground.name}", "right")
    properties = json.loads(environment["STREAM_SCORER_KAFKA__PROPERTIES"]) | {"ssl.key.password": "the wrong one"}
    environment["STREAM_SCORER_KAFKA__PROPERTIES"] = json.dumps(properties)
    with pytest.raises(SettingsError, match=r"^kafka.properties: .*ssl.key.location failed") as caught:
        check_properties(ground.settings(environment))
    assert "the wrong one" not in str(caught.value)


@pytest.mark.parametrize(
    ("heading", "listener", "principal"),
    [
        ("SCRAM over TLS", "SCRAM", "User:scorer"),
        ("Client certificates (mTLS)", "CERTIFICATE", "User:CN=scorer"),
        ("OAUTHBEARER", "TOKEN", "User:scorer"),
    ],
)
def test_the_connections_on_the_page_work(
    ground: Ground, token_url: str, heading: str, listener: str, principal: str
) -> None:
    """File and secret of the page with other addresses and paths; only that principal has the right."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n", 1)[1].split("\n#", 1)[0]
    [toml], [secret] = (re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("toml", "json"))
    ground.scram("scorer")
    certificate = ground.secured.authority.issue("scorer", password="password of scorer")
    places = {
        "kafka-1.example.com:9093": ground.secured.servers(listener),
        "https://login.example.com/token": token_url,
        "/etc/kafka/authority.pem": str(ground.secured.authority.file),
        "/etc/kafka/scorer.pem": str(certificate),
    }
    for given, ours in places.items():
        toml = toml.replace(given, ours)
    (ground.folder / "scorer.toml").write_text(toml, encoding="utf-8")
    password = SECRET if listener == "TOKEN" else "password of scorer"
    (ground.folder / "kafka.json").write_text(secret.replace("…", password), encoding="utf-8")
    environ = {
        "STREAM_SCORER_KAFKA__PROPERTIES_FILE": str(ground.folder / "kafka.json"),
        "STREAM_SCORER_TOPICS__FEATURES": f"features-{ground.name}",
    }
    settings = load_settings(ground.folder / "scorer.toml", environ=environ)
    create_topics(ground.settings(ground.as_root()))
    ground.grant({principal: acls.producing_rights(settings)})
    check_properties(settings)
    found = check_topics(settings, [settings.topics.features], rights=acls.producing_rights(settings))
    assert found == {settings.topics.features: 4}
