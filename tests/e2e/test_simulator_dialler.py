"""The simulator's dial queue over real HTTP: the documented behaviour of the platform."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from stream_scorer.errors import SettingsError
from stream_scorer.local.simulator.contact_list import DialCount

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.local.simulator import Simulator

LISTS = "/api/v2/outbound/contactlists"
OTHER = {"columns": ["person", "mobile", "home"], "phone_columns": ["mobile", "home"]}


class Client:
    """Client of the simulated platform's contact lists."""

    def __init__(self, simulator: Simulator) -> None:
        self._base_url = simulator.base_url
        form = {"grant_type": "client_credentials"}
        auth = (simulator.config.client_id, simulator.config.client_secret)
        token = requests.post(f"{simulator.base_url}/oauth/token", data=form, auth=auth, timeout=10).json()
        self._headers = {"Authorization": f"Bearer {token['access_token']}"}

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        return requests.request(method, self._base_url + path, headers=self._headers, timeout=10, **more)

    def add(
        self, *contacts: dict[str, Any], list_id: str = "simulator-list", status: int = 200, **query: str
    ) -> requests.Response:
        body = [{"contactListId": list_id, **contact} for contact in contacts]
        answer = self.request("POST", f"{LISTS}/{list_id}/contacts", json=body, params=query)
        assert answer.status_code == status, answer.text
        return answer


def person(contact_id: str, scored_at: str = "10:00", phone: str | None = None, **more: Any) -> dict[str, Any]:
    data = {"contact_id": contact_id, "scored_at": scored_at, "phone": f"+49-{contact_id}" if phone is None else phone}
    return {"id": contact_id, "data": data, **more}


@pytest.fixture
def client(simulator: Simulator) -> Client:
    return Client(simulator)


def ids_of(simulator: Simulator, **how: Any) -> list[str]:
    return [dial.id for dial in simulator.dial(**how)]


def test_contacts_are_dialled_in_their_order_and_priority_next(simulator: Simulator, client: Client) -> None:
    client.add(person("a"), person("b"), person("c"))
    client.add(person("x"), person("y"), priority="true")
    assert simulator.dial_queue() == ["x", "y", "a", "b", "c"]
    assert ids_of(simulator, contacts=2) == ["x", "y"]
    assert simulator.dialler() == (5, 3, 2)
    assert ids_of(simulator) == ["a", "b", "c"]
    assert ids_of(simulator) == []
    contact = simulator.contact_list()["a"]
    assert (contact.attempts, contact.wrap_up, contact.queued, contact.callable) == (1, "CONTACTED", False, True)


def test_do_not_queue_keeps_positions_and_dialled_contacts(simulator: Simulator, client: Client) -> None:
    client.add(person("a"), person("b"), person("c"))
    assert ids_of(simulator, contacts=1) == ["a"]
    client.add(person("c", "11:00"), person("a", "11:00"), person("new"), doNotQueue="true", priority="true")
    assert simulator.dial_queue() == ["new", "b", "c"]  # for a new contact the parameter has no effect
    assert [(dial.id, dial.data["scored_at"]) for dial in simulator.dial()] == [
        ("new", "10:00"),
        ("b", "10:00"),
        ("c", "11:00"),
    ]
    assert simulator.dialled(minimum=2) == []


def test_without_do_not_queue_an_update_dials_again(simulator: Simulator, client: Client) -> None:
    client.add(person("a"), person("b"))
    assert ids_of(simulator, contacts=1) == ["a"]
    client.add(person("a"))
    assert simulator.dial_queue() == ["b", "a"]
    client.add(person("a"), person("a"), priority="true")
    assert simulator.dial_queue() == ["a", "b"]
    assert ids_of(simulator) == ["a", "b"]
    assert simulator.dialled(minimum=2) == [DialCount("+49-a", "10:00", 2)]
    assert simulator.dialled(person="contact_id") == [DialCount("a", "10:00", 2), DialCount("b", "10:00", 1)]
    assert [(dial.id, dial.attempt) for dial in simulator.dials()] == [("a", 1), ("a", 2), ("b", 1)]
    assert simulator.contact_list()["a"].attempts == 2


def test_a_newer_score_of_a_person_is_counted_separately(simulator: Simulator, client: Client) -> None:
    client.add(person("a", "10:00"))
    simulator.dial()
    client.add(person("a", "11:00"))
    simulator.dial()
    client.add(person("other id", "11:00", phone="+49-a"))
    simulator.dial()
    assert simulator.dialled() == [DialCount("+49-a", "10:00", 1), DialCount("+49-a", "11:00", 2)]


@pytest.mark.parametrize("by", ["wrap_up", "agent"])
def test_an_opt_out_stays_unless_a_request_overwrites_it(simulator: Simulator, client: Client, by: str) -> None:
    client.add(person("a"))
    if by == "wrap_up":
        assert [dial.wrap_up for dial in simulator.dial(wrap_up="OPT-OUT")] == ["OPT-OUT"]
    else:
        simulator.opt_out("a")
    client.add(person("a", "11:00"))  # queued again, and still not callable
    assert not simulator.contact_list()["a"].callable
    assert simulator.dial() == []
    client.add(person("a", "12:00", callable=True))
    assert ids_of(simulator) == ["a"]
    client.add(person("a", callable=False))
    assert simulator.dial() == []


def test_clear_system_data_deletes_attempts_and_the_opt_out(simulator: Simulator, client: Client) -> None:
    client.add(person("a"))
    simulator.dial(wrap_up="OPT-OUT")
    client.add(person("a"), clearSystemData="true", doNotQueue="true")
    contact = simulator.contact_list()["a"]
    assert (contact.attempts, contact.wrap_up, contact.callable, contact.queued) == (0, None, True, False)
    assert simulator.dial() == []
    client.add(person("a"), clearSystemData="true")
    assert ids_of(simulator) == ["a"]


def test_a_contact_that_does_not_answer_is_called_up_to_the_limit(simulator: Simulator, client: Client) -> None:
    simulator.configure(max_attempts=3)
    client.add(person("a"), person("b"))
    for _ in range(4):
        simulator.dial(wrap_up="NO-ANSWER")
    assert [(dial.id, dial.attempt) for dial in simulator.dials()] == [
        *(("a", 1), ("b", 1), ("a", 2), ("b", 2)),
        *(("a", 3), ("b", 3)),
    ]


def test_a_contact_without_a_number_is_never_called(simulator: Simulator, client: Client) -> None:
    client.add(person("a", phone=" "), {"id": "b", "data": {"contact_id": "b"}}, person("c"))
    assert ids_of(simulator) == ["c"]
    assert simulator.dial_queue() == []


def test_each_list_has_its_columns_and_its_queue(make_simulator: Callable[..., Simulator]) -> None:
    simulator = make_simulator(contact_lists={"other": OTHER})
    client = Client(simulator)
    client.add(person("a"))
    client.add({"id": "a", "data": {"person": "A", "mobile": "", "home": "+49-1"}}, list_id="other")
    listed = client.request("GET", f"{LISTS}/other").json()
    assert (listed["columnNames"], listed["size"]) == (OTHER["columns"], 1)
    assert [column["columnName"] for column in listed["phoneColumns"]] == OTHER["phone_columns"]
    assert client.request("GET", f"{LISTS}/none").status_code == 404
    assert client.add(person("b"), list_id="other", status=400).json()["code"] == "invalid.value"
    client.add(person("b"), list_id="none", status=404)
    [dial] = simulator.dial(list_id="other")
    assert (dial.contact_list_id, dial.id, dial.number) == ("other", "a", "+49-1")
    assert simulator.dial_queue() == ["a"]
    assert simulator.contact_list("other")["a"].data["person"] == "A"


def test_contacts_are_read_by_their_ids(simulator: Simulator, client: Client) -> None:
    client.add(person("a"), person("b", callable=False))
    answer = client.request("POST", f"{LISTS}/simulator-list/contacts/bulk", json=["b", "none", "a"])
    assert [(contact["id"], contact["callable"]) for contact in answer.json()] == [("b", False), ("a", True)]
    assert answer.json()[0]["data"] == person("b")["data"]
    for body in ([], {}, [1], ["a"] * 1001):
        assert client.request("POST", f"{LISTS}/simulator-list/contacts/bulk", json=body).status_code == 400
    assert simulator.stats().requests["outbound_read"] == {"200": 1, "400": 4}


def test_a_refused_contact_and_a_full_list_refuse_the_whole_request(simulator: Simulator, client: Client) -> None:
    simulator.configure(contact_list_limit=2)
    client.add(person("a"), person("REFUSE-b"), status=400)
    named = client.add(person("a"), person("REFUSE-NAMED-b"), status=400).json()
    assert [detail["entityId"] for detail in named["details"]] == ["REFUSE-NAMED-b"]
    client.add(person("a"), person("b"), person("c"), status=400)
    assert simulator.contact_list() == {}
    client.add(person("a"), person("b"))
    client.add(person("b"), person("a"))  # nothing new
    client.add(person("c"), status=400)
    client.add({"id": "a", "data": {"a": "b"}}, status=400)
    client.add(person("a"), doNotQueue="yes", status=400)
    client.add(person("a"), doNotCall="true", status=400)
    assert sorted(simulator.contact_list()) == ["a", "b"]


def test_the_dialler_dials_by_itself(simulator: Simulator, client: Client) -> None:
    client.add(*(person(f"{number:02}") for number in range(60)))
    simulator.configure(dials_per_s=1000.0)
    give_up = time.monotonic() + 20
    while len(simulator.dials()) < 60 and time.monotonic() < give_up:
        time.sleep(0.01)
    assert [dial.id for dial in simulator.dials()] == [f"{number:02}" for number in range(60)]
    client.add(person("later"))
    simulator.configure(dials_per_s=0)
    client.add(person("latest"))
    assert "latest" in simulator.dial_queue()


def test_wrong_orders_change_nothing(simulator: Simulator, client: Client) -> None:
    client.add(person("a"))
    for wrong in (
        lambda: simulator.dial(list_id="none"),
        lambda: simulator.dial(-1),
        lambda: simulator.dial(wrap_up="SOLD"),  # type: ignore[arg-type]
        lambda: simulator.opt_out("none"),
        lambda: simulator.opt_out("a", list_id="none"),
        lambda: simulator.contact_list("none"),
        lambda: simulator.configure(contact_lists={"l": {"columns": ["a"]}}),
        lambda: simulator.configure(contact_lists={"l": {"columns": [str(n) for n in range(51)]}}),
    ):
        with pytest.raises(SettingsError):
            wrong()
    assert simulator.dial_queue() == ["a"]
    simulator.reset()
    assert (simulator.dial_queue(), simulator.dials()) == ([], [])
