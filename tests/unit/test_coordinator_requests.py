"""Requests to the coordinator of a group: librdkafka aborts the process when one of them reaches its own time limit."""

from __future__ import annotations

import ast
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

import stream_scorer
from stream_scorer.kafka.client.coordinator_requests import coordinator_result

PACKAGE = Path(stream_scorer.__file__).parent
# Methods of the admin client that ask the coordinator; `list_consumer_group_offsets` must not be used at all.
ABORTING = {
    "alter_consumer_group_offsets",
    "delete_consumer_groups",
    "delete_consumer_group_offsets",
    "describe_consumer_groups",
    "list_consumer_group_offsets",
}


class FakeRequest:
    def __init__(self) -> None:
        self.future: Future[str] = Future()
        self.called: list[tuple[list[str], float]] = []

    def __call__(self, groups: list[str], *, request_timeout: float) -> dict[str, Future[str]]:
        self.called.append((groups, request_timeout))
        return {groups[0]: self.future}


def test_a_request_without_a_response_is_a_time_out_and_its_own_limit_is_not_reached() -> None:
    request = FakeRequest()
    with pytest.raises(KafkaException) as raised:
        coordinator_result(request, "group", timeout_s=0.01)
    assert raised.value.args[0].code() == KafkaError._TIMED_OUT
    assert request.called == [(["group"], 3_600.0)]


def test_the_result_is_returned_and_a_failure_raised() -> None:
    request = FakeRequest()
    request.future.set_result("members")
    assert coordinator_result(request, "group", timeout_s=5.0) == "members"
    failing = FakeRequest()
    failing.future.set_exception(KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)))
    with pytest.raises(KafkaException):
        coordinator_result(failing, "group", timeout_s=5.0)


def direct_calls(source: str) -> list[str]:
    found = [node.func.attr for node in ast.walk(ast.parse(source)) if is_method_call(node)]
    return [name for name in found if name in ABORTING]


def is_method_call(node: Any) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)


def test_no_request_has_a_limit_of_its_own() -> None:
    assert direct_calls("admin.describe_consumer_groups([group], request_timeout=5)") == ["describe_consumer_groups"]
    sources = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    assert {path for path, source in sources.items() if direct_calls(source)} == set()
    assert {path for path, source in sources.items() if "list_consumer_group_offsets" in source} == set()
