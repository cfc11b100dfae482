"""What the brokers are asked about rights, and what not: a call that may end the process is not worth its answer."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]  # the stubs do not list it

from stream_scorer.kafka.rights import Right, missing_rights


class Brokers:
    """They let everybody describe topics, and nothing else."""

    def describe_topics(self, topics: Any, **_options: Any) -> dict[str, Future[Any]]:
        answer: Future[Any] = Future()
        answer.set_result(SimpleNamespace(authorized_operations=[AclOperation.DESCRIBE]))
        return dict.fromkeys(topics.topic_names, answer)


def test_topics_are_asked_about_and_groups_are_not() -> None:
    """librdkafka aborts the process now and then when the question about a group times out."""
    write, group = Right("Write", "topic", "scores"), Right("Read", "group", "g")
    brokers: Any = Brokers()
    assert missing_rights(brokers, [write, group]) == [write]
    assert missing_rights(brokers, [group]) == []
