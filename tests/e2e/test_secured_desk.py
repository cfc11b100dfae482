"""The operator's desk on a Kafka that checks rights, with exactly those of `kafka.admin.acls`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from scoring_harness import FEATURES, PATIENCE_S, SCORE, event
from support_secured import Ground
from test_review_desk import score

from stream_scorer.kafka.admin import acls
from stream_scorer.kafka.admin.topics import create_topics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from secured_fixture import SecuredKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def ground(secured: SecuredKafka, tmp_path: Path) -> Iterator[Ground]:
    made = Ground(secured, tmp_path)
    made.environment["STREAM_SCORER_TOPICS__FEATURES_RETRY"] = f"waiting-{made.name}"
    create_topics(made.settings(made.as_root()))
    producer = Producer({"bootstrap.servers": secured.open_servers})
    source: Any = [("stream-scorer-source", f"features-{made.name}/0/0".encode())]
    for number in range(2):
        one = FEATURES.encode(event(f"C-{number}"))
        reason = ("stream-scorer-error-reason", b"expired")
        producer.produce(f"rejected-{made.name}", one, f"C-{number}", headers=[*source, reason])
        producer.produce(f"review-{made.name}", SCORE.encode(score(f"C-{number}")), f"C-{number}", headers=source)
    assert producer.flush(PATIENCE_S) == 0
    yield made
    made.kill_all()


@pytest.mark.parametrize(
    ("command", "decide"), [("rejected", ("replay", "C-0")), ("review", ("accept", "C-0", "--note", "checked"))]
)
def test_the_desk_needs_its_rights_and_no_others(ground: Ground, command: str, decide: tuple[str, ...]) -> None:
    root = ground.settings(ground.as_root())
    rights = acls.rejected_desk_rights(root) if command == "rejected" else acls.review_desk_rights(root)
    users = {f"operator-{ground.name}": rights, f"viewer-{ground.name}": [one for one in rights if is_reading(one)]}
    ground.scram(*users)
    ground.grant({f"User:{user}": some for user, some in users.items()})
    operator, viewer = (ground.as_scram(user) for user in users)
    for who in (operator, viewer):
        for look in (("list",), ("explain", "C-0")):
            seen = ground.command(who, command, *look)
            assert (seen.code, seen.errors) == (0, ""), seen

    denied = ground.command(viewer, command, *decide, "--yes")
    assert denied.code == 1
    assert f"denies User:viewer-{ground.name}: Write on " in denied.line
    for arguments in (decide, ("discard", "C-1", "--note", "checked")):
        done = ground.command(operator, command, *arguments, "--yes")
        assert (done.code, done.errors) == (0, ""), done
        assert json.loads(done.out)["decided"] == 1


def is_reading(right: acls.Permission) -> bool:
    return right.operation != "Write"


def test_a_list_without_a_right_on_the_group_leaves_out_the_deferred_contacts(ground: Ground) -> None:
    root = ground.settings(ground.as_root())
    user = f"viewer-{ground.name}"
    ground.scram(user)
    waiting = [acls.Permission("Read", "topic", name) for name in root.contact_retry_topics]
    ground.grant({f"User:{user}": [*filter(is_reading, acls.rejected_desk_rights(root)), *waiting]})
    seen = ground.command(ground.as_scram(user), "rejected", "list")
    assert seen.code == 0, seen
    assert json.loads(seen.out)["records"] == 2
    assert "deferred contacts are not counted" in seen.line
    assert f"Describe on group {ground.group_id}" in seen.line


@pytest.mark.parametrize("denied", ["", "-callbacks", "-callbacks-delivery"])
def test_reconcile_names_a_missing_right_on_a_group_within_seconds(ground: Ground, denied: str) -> None:
    """The brokers deny it only when the commits are read, and the client took it for a coordinator that is away."""
    root = ground.settings(ground.as_root())
    group = f"{ground.group_id}{denied}"
    commit(ground, f"{ground.group_id}-callbacks", root.topics.scores)
    if denied:
        commit(ground, ground.group_id, root.topics.features)
    rights = {*acls.reconciling_rights(root), *acls.reconciling_callbacks_rights(root)}
    user = f"judge-{ground.name}"
    ground.scram(user)
    ground.grant({f"User:{user}": [one for one in rights if one.name != group]})
    started = time.monotonic()
    ended = ground.command(ground.as_scram(user), "reconcile")
    assert ended.code == 1, ended
    assert f"denies User:{user}: Describe on group {group};" in ended.line
    assert time.monotonic() - started < 20.0


def commit(ground: Ground, group_id: str, topic: str) -> None:
    """Commit the first offset of a partition, as a worker that has done nothing yet."""
    with Consumer({"bootstrap.servers": ground.secured.open_servers, "group.id": group_id}) as consumer:
        consumer.commit(offsets=[TopicPartition(topic, 0, 0, "start=0")], asynchronous=False)
