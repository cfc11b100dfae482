"""ACL queries to the brokers: a call that may abort the process is not made."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]  # the stubs do not list it

from stream_scorer.kafka.admin.acls import Permission, missing_rights
from stream_scorer.kafka.admin.admin_client import ClusterAdmin
from stream_scorer.settings import load_settings


class Brokers:
    """Brokers that allow only Describe on topics."""

    def describe_topics(self, topics: Any, **_options: Any) -> dict[str, Future[Any]]:
        answer: Future[Any] = Future()
        answer.set_result(SimpleNamespace(authorized_operations=[AclOperation.DESCRIBE]))
        return dict.fromkeys(topics.topic_names, answer)


def test_topic_acls_are_queried_and_group_acls_are_not() -> None:
    """librdkafka sometimes aborts the process when the request for a group times out."""
    write, group = Permission("Write", "topic", "scores"), Permission("Read", "group", "g")
    brokers: Any = Brokers()
    assert missing_rights(brokers, [write, group]) == [write]
    assert missing_rights(brokers, [group]) == []


class Refusing(Brokers):
    """Brokers that deny every Describe request."""

    def describe_topics(self, topics: Any, **_options: Any) -> dict[str, Future[Any]]:
        answer: Future[Any] = Future()
        answer.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
        return dict.fromkeys(topics.topic_names, answer)


def test_no_admin_client_outlives_its_request() -> None:
    """One a second while a right is missing, each with its sockets: none may depend on the garbage collector."""
    gc.disable()
    try:
        brokers: Any = Refusing()
        write = Permission("Write", "topic", "scores")
        assert missing_rights(brokers, [write]) == [write]
        admin = ClusterAdmin(load_settings(environ={"STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}))
        left = [weakref.ref(brokers), weakref.ref(admin)]
        del brokers, admin
        assert [one() for one in left] == [None, None]
    finally:
        gc.enable()
