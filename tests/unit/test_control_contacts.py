"""Control contacts: the last ones scored, the latest first, at most 20 a minute."""

from __future__ import annotations

from support_core import contact, ids

from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.scoring.control_contacts import ControlContacts

KEY = BatchKey("v7", version_from_event=False)


def taken(controls: ControlContacts, now: float) -> str | None:
    request = controls.take(KEY, now)
    return None if request is None else request.contacts[0].contact_id


def test_no_control_before_the_first_score() -> None:
    controls = ControlContacts(ids())
    assert controls.is_empty
    assert controls.take(KEY, 0.0) is None
    controls.record_scored(contact("a"))
    assert not controls.is_empty


def test_the_contacts_scored_last_take_turns() -> None:
    controls = ControlContacts(ids())
    for number in range(20):
        controls.record_scored(contact(f"c{number}"))
    assert [taken(controls, 0.0) for _ in range(9)] == [f"c{number}" for number in (*range(19, 11, -1), 19)]


def test_a_contact_that_was_just_scored_comes_before_older_ones() -> None:
    controls = ControlContacts(ids())
    for number in range(8):
        controls.record_scored(contact(f"c{number}"))
    assert taken(controls, 0.0) == "c7"
    controls.record_scored(contact("c8"))
    assert [taken(controls, 0.0) for _ in range(2)] == ["c8", "c6"]


def test_it_is_sent_for_the_version_in_question() -> None:
    controls = ControlContacts(ids())
    controls.record_scored(contact("a", version="v1"))
    request = controls.take(KEY, 0.0)
    assert request is not None
    assert (request.key, request.is_control, request.is_single) == (KEY, True, True)


def test_at_most_twenty_controls_a_minute() -> None:
    controls = ControlContacts(ids())
    controls.record_scored(contact("a"))
    assert [taken(controls, now) is not None for now in range(25)] == [True] * 20 + [False] * 5
    assert taken(controls, 59.9) is None
    assert [taken(controls, 60.5) is not None for _ in range(2)] == [True, False]
