"""The simulator's contact list, as the target genesys-outbound finds it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
from support_targets import callback

from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.errors import SettingsError
from stream_scorer.settings import Settings
from stream_scorer.targets.factory import build_target

if TYPE_CHECKING:
    from stream_scorer.callbacks.ports import Target
    from stream_scorer.local.simulator import Simulator


def at_simulator(simulator: Simulator, contact_list_id: str = "simulator-list") -> Target:
    genesys = {
        "base_url": simulator.base_url,
        "login_url": simulator.base_url,
        "client_id": simulator.config.client_id,
        "client_secret": simulator.config.client_secret,
    }
    columns = {"contact_id": "contact_id", "scored_at": "scored_at", "phone": "contact_id"}
    callbacks = {"target": "genesys-outbound", "contact_list_id": contact_list_id, "columns": columns}
    return build_target(Settings.model_validate({"genesys": genesys, "callbacks": callbacks}))


def test_the_simulated_list_has_every_contact_once(simulator: Simulator) -> None:
    target = at_simulator(simulator)
    one, two = callback(target, "C-1", "C-2"), callback(target, "C-2", "C-3", callback_id="two")
    for sent in (one, one, two):
        assert target.deliver(sent).kind is DeliveryKind.DELIVERED
    listed = simulator.contact_list()
    assert sorted((contact.data["contact_id"], contact.times) for contact in listed.values()) == [
        ("C-1", 2),
        ("C-2", 3),
        ("C-3", 1),
    ]
    assert all(contact.priority and contact.callable for contact in listed.values())
    assert simulator.stats().requests == {
        "token": {"200": 1},
        "outbound_list": {"200": 1},
        "outbound": {"200": 3},
    }
    simulator.reset()
    assert simulator.contact_list() == {}
    target.close()


def test_what_the_simulated_platform_refuses(simulator: Simulator) -> None:
    target, elsewhere = at_simulator(simulator), at_simulator(simulator, "no-such-list")
    got = elsewhere.deliver(callback(elsewhere))
    assert (got.kind, got.status) == (DeliveryKind.REFUSED, 404)
    got = target.deliver(replace(callback(target), body=b'[{"contactListId":"other","data":{"a":"b"}}]'))
    assert (got.kind, got.status) == (DeliveryKind.REFUSED, 400)
    assert "invalid.value" in got.message
    simulator.revoke_tokens()
    assert target.deliver(callback(target)).kind is DeliveryKind.DELIVERED
    simulator.configure(scopes=["predictiveengagement:score"])
    got = target.deliver(callback(target))
    assert (got.kind, got.status) == (DeliveryKind.REFUSED, 403)
    assert len(simulator.contact_list()) == 1
    target.close()
    elsewhere.close()


def test_scripted_faults_of_the_simulated_list(simulator: Simulator) -> None:
    simulator.add_fault(path="outbound", status=503, retry_after=0)
    simulator.add_fault(path="outbound", drop="after")
    target = at_simulator(simulator)
    answers = [target.deliver(callback(target)) for _ in range(3)]
    assert [got.kind for got in answers] == [DeliveryKind.TRY_LATER] * 2 + [DeliveryKind.DELIVERED]
    [contact] = simulator.contact_list().values()
    assert contact.times == 2  # once more after the lost answer, and still one contact
    with pytest.raises(SettingsError, match="of path outbound holds no contact"):
        simulator.add_fault(path="outbound", contact_id="C-1", status=500)
    target.close()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}",
        b"[]",
        b"[1]",
        b'[{"contactListId":"simulator-list","data":{}}]',
        b'[{"contactListId":"simulator-list","data":{"a":1}}]',
        b'[{"contactListId":"simulator-list","data":{"a":"b"},"more":1}]',
        b'[{"contactListId":"simulator-list","data":{"a":"b"},"callable":"yes"}]',
        orjson.dumps([{"contactListId": "simulator-list", "data": {"a": "b"}}] * 1001),
    ],
    ids=lambda body: body[:60].decode(),
)
def test_the_simulated_list_adds_all_or_nothing(simulator: Simulator, body: bytes) -> None:
    target = at_simulator(simulator)
    got = target.deliver(replace(callback(target), body=body))
    assert (got.kind, got.status) == (DeliveryKind.REFUSED, 400)
    assert simulator.contact_list() == {}
    target.close()
