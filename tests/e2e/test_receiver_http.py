"""The receiver of callbacks: accepted and rejected requests, and every scripted fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import requests
from support_targets import CALLBACK_ID, callback, settings

from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.errors import SettingsError
from stream_scorer.local.receiver import Receiver, ReceiverConfig
from stream_scorer.targets.factory import build_target
from stream_scorer.targets.signature import Signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.callbacks.ports import Target

OTHER_SECRET = f"whsec_{b64encode(b'another secret of enough bytes').decode()}"


def to_receiver(receiver: Receiver) -> Target:
    return build_target(settings(url=receiver.url, secret=receiver.config.secret))


def test_the_receiver_accepts_callbacks_of_the_webhook(receiver: Receiver) -> None:
    target = to_receiver(receiver)
    one, two = callback(target, "C-1", "C-2"), callback(target, "C-2", "C-3", callback_id="two")
    for sent in (one, one, two):
        assert target.deliver(sent).kind is DeliveryKind.DELIVERED
    stats = receiver.stats()
    assert (stats.callbacks, stats.repeats, stats.contacts, stats.changed, stats.unverified) == (2, 1, 3, 0, 0)
    assert stats.requests == {"200": 3}
    assert receiver.contacts() == {"C-1": 1, "C-2": 2, "C-3": 1}
    seen = receiver.callbacks()
    assert seen.keys() == {CALLBACK_ID, "two"}
    assert (seen[CALLBACK_ID].attempts, seen[CALLBACK_ID].accepted) == (2, 2)
    assert seen[CALLBACK_ID].contact_ids == ("C-1", "C-2")
    assert seen[CALLBACK_ID].campaign_id == "spring"
    assert seen["two"].planned_at == "2030-03-17T17:46:40.000Z"


def test_another_secret_is_rejected_and_the_previous_one_is_valid_during_rotation(
    receiver: Receiver, make_receiver: Callable[..., Receiver]
) -> None:
    wrong = build_target(settings(url=receiver.url, secret=OTHER_SECRET))
    got = wrong.deliver(callback(wrong))
    assert (got.kind, got.status) == (DeliveryKind.REFUSED, 401)
    assert receiver.stats().unverified == 1
    rotating = {"secret": OTHER_SECRET, "secret_previous": receiver.config.secret}
    for at in (receiver, make_receiver(secret=OTHER_SECRET)):
        target = build_target(settings(url=at.url, **rotating))
        assert target.deliver(callback(target)).kind is DeliveryKind.DELIVERED


def post(receiver: Receiver, body: bytes, headers: dict[str, str], path: str = "/callbacks") -> int:
    return requests.post(receiver.base_url + path, data=body, headers=headers, timeout=10).status_code


def test_the_receiver_rejects_modified_requests(receiver: Receiver) -> None:
    target, signer, now = to_receiver(receiver), Signer(receiver.config.secret), datetime.now(UTC)
    body = callback(target).body
    good = signer.headers(CALLBACK_ID, body, now)
    tampered: list[tuple[bytes, dict[str, str]]] = [
        (body.replace(b"0.875", b"0.876"), good),
        (body, good | {"webhook-id": "another"}),
        (body, signer.headers(CALLBACK_ID, body, now - timedelta(minutes=6))),
        (body, signer.headers(CALLBACK_ID, body, now + timedelta(minutes=6))),
        (body, Signer(OTHER_SECRET).headers(CALLBACK_ID, body, now)),
        (body, good | {"webhook-signature": "v1"}),
        (body, good | {"webhook-signature": "v1,###"}),
        (body, {}),
    ]
    assert [post(receiver, *one) for one in tampered] == [401] * len(tampered)
    assert receiver.callbacks() == {}
    assert receiver.stats().unverified == len(tampered)
    assert post(receiver, body, good) == 200


def test_the_receiver_detects_a_repeat_with_other_bytes(receiver: Receiver) -> None:
    target = to_receiver(receiver)
    assert target.deliver(callback(target, "C-1")).status == 200
    assert target.deliver(callback(target, "C-2")).status == 409
    assert (receiver.stats().changed, receiver.contacts()) == (1, {"C-1": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"type": "other"},
        {"data": {}},
        {"data": None},
        {"data": {"callback_id": "x", "campaign_id": None, "contacts": [{"contact_id": "a"}]}},
        {"data": {"callback_id": CALLBACK_ID, "campaign_id": 7, "contacts": [{"contact_id": "a"}]}},
        {"data": {"callback_id": CALLBACK_ID, "campaign_id": None, "contacts": []}},
        {"data": {"callback_id": CALLBACK_ID, "campaign_id": None, "contacts": [{"contact_id": 7}]}},
    ],
)
def test_the_receiver_rejects_signed_requests_that_are_no_callback(receiver: Receiver, change: dict[str, Any]) -> None:
    content = orjson.loads(callback(to_receiver(receiver)).body) | change
    body = orjson.dumps(content)
    assert post(receiver, body, Signer(receiver.config.secret).headers(CALLBACK_ID, body, datetime.now(UTC))) == 400
    assert receiver.callbacks() == {}


def test_the_receiver_has_one_path_for_callbacks(receiver: Receiver) -> None:
    assert post(receiver, b"{}", {}, "/elsewhere") == 404
    assert requests.get(receiver.url, timeout=10).status_code == 405
    assert post(receiver, bytes(2_000_000), {}) == 413


@pytest.mark.parametrize(
    ("fault", "kind", "status", "taken"),
    [
        ({"status": 503, "retry_after": 7}, DeliveryKind.TRY_LATER, 503, 0),
        ({"status": 429, "body": "slow down"}, DeliveryKind.TRY_LATER, 429, 0),
        ({"status": 307, "headers": {"Location": "/callbacks"}}, DeliveryKind.REFUSED, 307, 0),
        ({"status": 410}, DeliveryKind.SWITCHED_OFF, 410, 0),
        ({"status": 422}, DeliveryKind.REFUSED, 422, 0),
        ({"drop": "before"}, DeliveryKind.TRY_LATER, None, 0),
        ({"drop": "after"}, DeliveryKind.TRY_LATER, None, 1),
        ({"delay_ms": 1}, DeliveryKind.DELIVERED, 200, 1),
    ],
    ids=str,
)
def test_the_receivers_faults(
    receiver: Receiver, fault: dict[str, Any], kind: DeliveryKind, status: int | None, taken: int
) -> None:
    target = to_receiver(receiver)
    receiver.add_fault(**fault)
    got = target.deliver(callback(target))
    assert (got.kind, got.status) == (kind, status), got
    assert got.retry_after_s == fault.get("retry_after")
    assert receiver.stats().callbacks == taken
    assert target.deliver(callback(target)).kind is DeliveryKind.DELIVERED  # the fault was for once
    assert (receiver.stats().callbacks, receiver.stats().changed) == (1, 0)
    assert receiver.callbacks()[CALLBACK_ID].attempts == 2


def test_faults_are_for_campaigns_and_contacts(receiver: Receiver) -> None:
    target = to_receiver(receiver)
    receiver.add_fault(campaign_id="autumn", status=503, times=None)
    receiver.add_fault(contact_id="C-9", status=422, after=1)
    receiver.add_fault(campaign_id="", status=500)

    def status(*contacts: str, **more: Any) -> int | None:
        return target.deliver(
            callback(target, *contacts, callback_id=f"{contacts}{more}".replace(" ", ""), **more)
        ).status

    assert [status("a", campaign_id="autumn") for _ in range(3)] == [503] * 3
    assert status("a", campaign_id="spring") == 200
    assert [status("b", "C-9") for _ in range(3)] == [200, 422, 200]
    assert [(fault["seen"], fault["fired"]) for fault in receiver.faults()] == [(3, 3), (2, 1), (0, 0)]
    assert status("a", campaign_id=None) == 500
    receiver.clear_faults()
    assert receiver.faults() == []
    assert status("a", campaign_id="autumn") == 200


@pytest.mark.parametrize(
    "fault", [{}, {"status": 503, "drop": "before"}, {"status": 204, "body": "x"}, {"retry_after": 5}, {"status": 99}]
)
def test_a_malformed_fault_is_one_line(receiver: Receiver, fault: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"^faults: .*$"):
        receiver.add_fault(**fault)
    assert receiver.faults() == []


def test_the_secret_is_in_no_repr() -> None:
    assert OTHER_SECRET not in repr(ReceiverConfig(secret=OTHER_SECRET))


# --- the command


def test_the_command_serves_until_it_is_stopped() -> None:
    command = [sys.executable, "-m", "stream_scorer", "receive", "--port", "0"]
    environment = {**os.environ, "RECEIVER_SECRET": OTHER_SECRET}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines: dict[str, str] = {}
        while "STREAM_SCORER_CALLBACKS__SECRET" not in lines:
            name, _, value = process.stdout.readline().strip().removeprefix("export ").partition("=")
            lines[name] = value
        assert lines["STREAM_SCORER_CALLBACKS__SECRET"] == '"$RECEIVER_SECRET"'
        target = build_target(settings(url=lines["STREAM_SCORER_CALLBACKS__URL"], secret=OTHER_SECRET))
        assert target.deliver(callback(target)).kind is DeliveryKind.DELIVERED
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_a_short_secret_is_one_line() -> None:
    command = [sys.executable, "-m", "stream_scorer", "receive", "--port", "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "RECEIVER_SECRET": "c2hvcnQ="}, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("stream-scorer: $RECEIVER_SECRET is too short")
    assert done.stderr.count("\n") == 1
    assert "c2hvcnQ" not in done.stderr
