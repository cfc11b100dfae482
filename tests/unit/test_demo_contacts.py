"""Contacts of the demo: each has the intended outcome with the checks of the worker."""

from __future__ import annotations

from collections import Counter

import pytest

from stream_scorer.core.avro.codec import Codec, UndecodableError
from stream_scorer.core.scoring.contact_decoder import ContactDecoder
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.core.scoring.types import Reason
from stream_scorer.genesys.wire import encode_contact
from stream_scorer.local.demo.contacts import Generated, contacts, expected_rejections
from stream_scorer.local.simulator import SimulatorConfig
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import Settings

CODEC = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
SETTINGS = Settings()
CHECKER = ContactChecker(FeatureList(tuple(SETTINGS.model.features.values()), SETTINGS.model.max_features), None)
NOW_MS = 1_700_000_000_000
SIMULATED = SimulatorConfig()


def generate(amount: int, seed: int = 1) -> list[Generated]:
    return list(contacts(CODEC, amount, seed=seed, now_ms=NOW_MS))


def judged(record: Generated) -> tuple[Reason | None, tuple[str, ...]]:
    """Return the reason for its rejection by worker or simulator, and the imputed features."""
    try:
        event = ContactDecoder(CODEC).decode(record.value)
    except UndecodableError:
        return Reason.UNDECODABLE, ()
    assert record.key == event.contact_id.encode()
    checked = CHECKER.check(event)
    if isinstance(checked, list):
        return checked[0][0], ()
    features, imputed = checked
    if len(encode_contact(event.contact_id, features)) > SETTINGS.scoring.max_request_bytes:
        return Reason.TOO_LARGE, imputed
    if event.model_version not in (None, *(SIMULATED.known_versions or ())):
        return Reason.UNKNOWN_MODEL_VERSION, imputed
    return Reason.REFUSED_BY_API if event.contact_id.startswith(SIMULATED.refuse_prefix) else None, imputed


@pytest.fixture(scope="module")
def many() -> list[Generated]:
    return generate(20_000)


def test_every_contact_becomes_what_it_is_generated_for(many: list[Generated]) -> None:
    wrong = [
        (record.rejected_for, judged(record)[0]) for record in many if judged(record)[0] is not record.rejected_for
    ]
    assert wrong == []


def test_all_kinds_of_trouble_are_among_them_and_few(many: list[Generated]) -> None:
    found = Counter(record.rejected_for for record in many)
    good = found.pop(None)
    assert dict(found) == dict(expected_rejections(20_000))
    assert set(found) == {
        Reason.UNDECODABLE,
        Reason.INVALID_CONTACT,
        Reason.TOO_MANY_FEATURES,
        Reason.UNSUPPORTED_FEATURE,
        Reason.WRONG_TYPE,
        Reason.OUT_OF_RANGE,
        Reason.TOO_LARGE,
        Reason.UNKNOWN_MODEL_VERSION,
        Reason.REFUSED_BY_API,
    }
    assert good >= 19_700


def test_undecodable_ones_are_null_garbage_cut_off_and_of_an_unknown_schema(many: list[Generated]) -> None:
    header = CODEC.encode(
        {
            "event_id": "e",
            "contact_id": "c",
            "features": {},
            "occurred_at": 0,
            "campaign_id": None,
            "model_version": None,
            "attributes": {},
        }
    )[:10]
    values = [record.value for record in many if record.rejected_for is Reason.UNDECODABLE]
    kinds = Counter(
        "null"
        if value is None
        else "cut off"
        if value.startswith(header)
        else "unknown schema"
        if value.startswith(b"\xc3\x01")
        else "garbage"
        for value in values
    )
    assert kinds == {"null": 10, "cut off": 10, "unknown schema": 10, "garbage": 20}


def test_some_refused_contacts_are_named_by_the_api_and_some_are_not(many: list[Generated]) -> None:
    refused = [record.key for record in many if record.rejected_for is Reason.REFUSED_BY_API]
    named = [key for key in refused if key.startswith(SIMULATED.refuse_named_prefix.encode())]
    assert (len(named), len(refused) - len(named)) == (6, 3)


def test_gaps_are_left_to_impute_in_every_feature(many: list[Generated]) -> None:
    imputed: Counter[str] = Counter()
    for record in many:
        imputed.update(judged(record)[1])
    assert set(imputed) == set(SETTINGS.model.features)
    assert imputed["last_contact_days"] > 10_000
    assert all(amount < 1_500 for name, amount in imputed.items() if name != "last_contact_days")


def test_some_contacts_come_again_with_another_event(many: list[Generated]) -> None:
    events = [ContactDecoder(CODEC).decode(record.value) for record in many if record.rejected_for is None]
    assert len({event.event_id for event in events}) == len(events)
    assert 200 < len(events) - len({event.contact_id for event in events}) < 600


def test_the_same_seed_gives_the_same_contacts() -> None:
    assert generate(500) == generate(500)
    assert generate(500, seed=2) != generate(500)


@pytest.mark.parametrize("amount", [1, 2, 10, 31, 2_000])
def test_few_contacts_keep_their_number_and_are_half_good_at_least(amount: int) -> None:
    records = generate(amount)
    found = Counter(record.rejected_for for record in records)
    good = found.pop(None, 0)
    assert len(records) == amount
    assert good >= amount - amount // 2
    assert dict(found) == {reason: times for reason, times in expected_rejections(amount).items() if times}


def test_however_many_there_are_few_cost_the_api_many_requests() -> None:
    assert expected_rejections(10_000_000)[Reason.REFUSED_BY_API] == 500 + 20
    assert expected_rejections(10_000_000)[Reason.TOO_LARGE] == 5
