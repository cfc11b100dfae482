"""Rejected contacts for an operator: expressions, changes, explanations and the repair of every reason."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from stream_scorer.cli.rejected import _lines as explanation_lines
from stream_scorer.core.desk.decisions import Action, DecidedRecords, Decision, decision_of
from stream_scorer.core.desk.explanation import explain
from stream_scorer.core.desk.expression import Expression
from stream_scorer.core.desk.rejected_record import RejectionState, parse_rejected
from stream_scorer.core.desk.selection import OffsetBounds, Selection, check_job_name, check_resumed, selection_of
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.core.scoring.types import ContactEvent, Reason, Rejected
from stream_scorer.desk.changes import Changes
from stream_scorer.desk.record_desk import nothing_selected
from stream_scorer.errors import UsageError

MODEL = {
    "age": Feature("age", "integer", minimum=0, maximum=120),
    "balance": Feature("balance", "number", impute=0.0),
    "segment": Feature("segment", "string", choices=("gold", "silver")),
    "active": Feature("active", "boolean", impute=False),
}
GOOD: dict[str, Any] = {"age": 40, "balance": 1.5, "segment": "gold", "active": True}
TIME = "2030-01-31T06:00:00Z"
PLACE = "contact-features-rejected/2/17"
AT_MS = 1_700_000_000_000
EVENT = ContactEvent("E-1", "C-1", GOOD, AT_MS, "spring", None, {"phone": "+49"})


def rejected(reason: str, **headers: str) -> Any:
    given = {
        "stream-scorer-source": "contact-features/3/9",
        "stream-scorer-error-reason": reason,
        "stream-scorer-error-detail": "why",
        "stream-scorer-error-timestamp": "2026-11-30T08:00:00+00:00",
        **{f"stream-scorer-{name.replace('_', '-')}": value for name, value in headers.items()},
    }
    coded: Any = [(name, value.encode()) for name, value in given.items()]
    return parse_rejected(SourceRecord("contact-features-rejected", 2, 17, b"C-1", b"value", coded))


def today(event: ContactEvent, age_ms: int | None = None) -> Rejected | None:
    """The verdict of the worker's own checks."""
    found = ContactChecker(FeatureList(tuple(MODEL.values()), 4), 3_600).check(event, age_ms)
    if not isinstance(found, list):
        return None
    record = SourceRecord("contact-features", 3, 9, b"C-1", b"value", [])
    return Rejected(record, tuple(reason for reason, _ in found), "; ".join(text for _, text in found), "C-1", 0)


def changed(**features: Any) -> ContactEvent:
    return EVENT._replace(features={name: value for name, value in {**GOOD, **features}.items() if value is not None})


SECONDS = EVENT._replace(occurred_at_ms=AT_MS // 1000)
UNDECODABLE = Rejected(SourceRecord("t", 0, 0, None, None, []), ("undecodable",), "the value is null", "", 0)
REPLAY = f"stream-scorer rejected replay --place {PLACE}"
DISCARD = f'stream-scorer rejected discard --place {PLACE} --note "sent again by the producer"'


@pytest.mark.parametrize(
    ("reason", "event", "verdict", "command"),
    [
        (Reason.UNDECODABLE, None, UNDECODABLE, DISCARD),
        (Reason.INVALID_CONTACT, EVENT._replace(event_id=""), None, DISCARD),
        (
            Reason.INVALID_CONTACT,
            SECONDS,
            None,
            f"{REPLAY} --set 'occurred_at=<time with a zone>'",
        ),
        (Reason.EXPIRED, EVENT, "expired", f"{REPLAY} --set 'occurred_at=<time with a zone>'"),
        (Reason.TOO_MANY_FEATURES, changed(shoe=44), None, f"{REPLAY} --drop shoe"),
        (Reason.UNSUPPORTED_FEATURE, changed(**{"shoe size": 1, "active": None}), None, f"{REPLAY} --drop 'shoe size'"),
        (Reason.MISSING_FEATURE, changed(age=None), None, f"{REPLAY} --set 'age=<integer 0..120>'"),
        (Reason.WRONG_TYPE, changed(age="old"), None, f"{REPLAY} --set 'age=<integer 0..120>'"),
        (Reason.OUT_OF_RANGE, changed(segment="tin"), None, f"{REPLAY} --set 'segment=<string one of gold, silver>'"),
        (Reason.TOO_LARGE, EVENT, None, REPLAY),
        (Reason.UNKNOWN_MODEL_VERSION, EVENT._replace(model_version="v9"), None, f"{REPLAY} --set model_version="),
        (Reason.REFUSED_BY_API, EVENT, None, REPLAY),
        (Reason.NO_RESULT, EVENT, None, REPLAY),
        (Reason.UNPUBLISHABLE, EVENT, None, REPLAY),
    ],
)
def test_every_reason_has_its_remedy_and_its_command(
    reason: Reason, event: ContactEvent | None, verdict: Any, command: str
) -> None:
    if verdict is None and event is not None:
        verdict = today(event)
    elif verdict == "expired":
        verdict = today(EVENT, age_ms=7_200_000)
    found = explain(rejected(reason), event, MODEL, verdict, state=RejectionState.OPEN, audit=None)
    assert found.reason == reason
    assert found.command == command
    assert len(found.remedy) > 20
    if verdict is not None:
        assert verdict.reasons[0] == reason
        assert found.today == f"{', '.join(verdict.reasons)}: {verdict.detail}"
    else:
        assert found.today == "passes the checks before the API"


def test_every_reason_of_the_contract_is_explained() -> None:
    explained = test_every_reason_has_its_remedy_and_its_command.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {row[0] for row in explained} == set(Reason)


def test_a_contact_that_passes_today_is_replayed_as_it_is() -> None:
    found = explain(rejected("wrong_type"), EVENT, MODEL, None, state=RejectionState.OPEN, audit=None)
    assert found.command == REPLAY
    assert found.remedy == "today's settings accept the contact: replay it"


@pytest.mark.parametrize("state", [RejectionState.REPLAYED, RejectionState.DISCARDED])
def test_a_decided_contact_has_no_command(state: RejectionState) -> None:
    found = explain(rejected("wrong_type"), EVENT, MODEL, None, state=state, audit=None)
    assert found.command == ""
    assert found.remedy.startswith(f"it was {state}")


def test_a_place_in_the_position_of_an_id_names_its_option() -> None:
    assert nothing_selected("rejected", ["C-1", PLACE]) == f"{PLACE} is a place, not an id: use --place {PLACE}"
    assert nothing_selected("rejected", ["C-1"]) == "no record of rejected is selected: check the ids and the options"


def test_the_text_of_an_explanation_has_no_values_of_python() -> None:
    event = changed(active=None)._replace(campaign_id=None)
    found = explain(rejected("expired"), event, MODEL, None, state=RejectionState.OPEN, audit=None)
    text = "\n".join(explanation_lines(found))
    assert "campaign (none)" in text
    assert "active = null" in text
    assert re.search(r"None|True|False", text) is None


def test_each_feature_stands_with_its_rule_and_finding() -> None:
    event = changed(age=130, balance=None, shoe=44)
    found = explain(rejected("out_of_range"), event, MODEL, today(event), state=RejectionState.OPEN, audit=None)
    assert [(one.name, one.value, one.rule, one.finding) for one in found.features] == [
        ("age", 130, "integer 0..120", "'age' must be from 0 to 120"),
        ("balance", None, "number", "imputed: 0.0"),
        ("segment", "gold", "string one of gold, silver", "ok"),
        ("active", True, "boolean", "ok"),
        ("shoe", 44, "", "the model has no such feature"),
    ]


# --- expressions

VALUES = {"reason": "wrong_type", "status": None, "replays": 1, "features": {"age": 71, "x y": 1}, "campaign_id": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reason == 'wrong_type' and features['age'] > 70", True),
        ("features['age'] > 71", False),
        ("features['x y'] == 1", True),
        ("features['income'] > 3", False),
        ("features['income'] == null", True),
        ("campaign_id == null", True),
        ("status == null or status >= 400", True),
        ('reason =~ "wrong.*"', True),
        ('reason in ["expired", "wrong_type"]', True),
        ("replays", True),
        ("contact_id == 'C-1'", False),
        # A comparison with a missing value is false, and does not end the expression.
        ("status >= 400", False),
        ("not (status >= 400)", True),
        ("status >= 400 or reason == 'wrong_type'", True),
        ("features['income'] > 3 or features['age'] > 70", True),
        ("features['income'] >= features['balance']", False),
        ("'test' in campaign_id", False),
        ("'test' in campaign_id or replays == 1", True),
        ("campaign_id in features['income']", False),
        ("attributes['language'] == null and replays == 1", True),
        ("status > 1 ? false : (features['income'] > 1 or true)", True),
        ("features['age'] > 'x' or replays == 1", True),
        ("replays + 1 ** 9 ** 9 ** 9 ** 9 > 1 or replays == 1", True),
        ("campaign_id != 'spring' and status != 404", True),
    ],
)
def test_an_expression_selects(text: str, expected: bool) -> None:
    assert Expression(text).matches(VALUES) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "--where is no expression (at its end)"),
        ("features['age'] >", "--where is no expression (at its end)"),
        ("reason = 'x'", "--where is no expression"),
        ("age > 3", "--where: there is no 'age'; use contact_id, event_id, "),
        ("replays > 'x'", "--where compares values of two types"),
        ("features.age > 3", "--where: write features['NAME']"),
        ("__import__('os')", "--where"),
        ("reason =~ '('", "--where: the text behind =~"),
        ("occurred_at > d'soon'", "--where: write a time like"),
        ("1 / 0 > replays", "--where divides by zero"),
        # The library compares them as unequal: such an expression selected no record.
        ("status == '400'", "--where compares values of two types"),
        ("replays > 1 and not ('400' != status)", "--where compares values of two types"),
        ("features == 3", "--where compares values of two types"),
    ],
)
def test_a_bad_expression_is_refused_before_any_record_is_read(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Expression(text)
    assert str(caught.value).startswith(words)
    assert len(str(caught.value).splitlines()) == 1


# --- changes


def test_changes_set_and_remove() -> None:
    changes = Changes(
        [
            "age=41",
            "balance=",
            "features.segment=silver",
            "attributes.phone=+1",
            "campaign_id=",
            "occurred_at=2030-01-31T06:00:00Z",
        ],
        ["active", "attributes.name"],
        MODEL,
    )
    event = changes.apply(EVENT._replace(attributes={"phone": "+49", "name": "n"}))
    assert event.features == {"age": 41, "balance": None, "segment": "silver"}
    assert event.attributes == {"phone": "+1"}
    assert (event.campaign_id, event.occurred_at_ms) == (None, 1_896_069_600_000)
    assert (event.event_id, event.contact_id) == ("E-1", "C-1")
    assert changes.texts["age"] == "41"
    assert changes.texts["-active"] == ""


def test_a_feature_named_like_a_field_is_the_feature() -> None:
    model = {"campaign_id": Feature("campaign_id", "string")}
    event = Changes(["campaign_id=x"], [], model).apply(EVENT)
    assert (event.features["campaign_id"], event.campaign_id) == ("x", "spring")


@pytest.mark.parametrize(
    ("sets", "drops", "words"),
    [
        (["age"], [], "--set 'age': write NAME=VALUE"),
        (["=3"], [], "write NAME=VALUE"),
        (["age=1", "age=2"], [], "'age' is changed twice"),
        (["age=1"], ["age"], "'age' is changed twice"),
        (["age=old"], [], "'age' must be an integer"),
        (["shoe=44"], [], "the model has no such feature; use age, balance"),
        (["contact_id=x"], [], "the model has no such feature"),
        (["occurred_at=yesterday"], [], "occurred_at must be a time with its zone"),
        ([], ["occurred_at"], "--drop occurred_at: every contact has it"),
        ([], ["event_id"], "--drop event_id"),
        (["attributes.a=\ud800"], [], "not valid Unicode"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(sets: list[str], drops: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Changes(sets, drops, MODEL)
    assert words in str(caught.value)


# --- decisions and selections


def decision(place: str, action: str = "REPLAYED", topic_id: str | None = "id", job: str = "j") -> Decision:
    return Decision("d", place, topic_id, action, job, "ada", "", AT_MS)


def test_decisions_about_a_former_topic_do_not_count() -> None:
    decided = DecidedRecords("t", "id")
    for one in (decision("t/0/1"), decision("t/0/2", topic_id="former"), decision("t/0/3", topic_id=None)):
        decided.add(one)
    assert [decided.action(f"t/0/{n}") for n in (1, 2, 3)] == ["REPLAYED", None, "REPLAYED"]
    assert decided.decided_by("j") == 2


def test_a_job_of_a_former_topic_is_not_resumed() -> None:
    """Its resumption has no options: it would begin a job that selects every record of the present topic."""
    decided = DecidedRecords("t", "id")
    for one in (
        decision("t/job/monday", "JOB", "former", job="monday"),
        decision("t/job/both", "JOB", "former", job="both"),
        decision("t/job/both", "JOB", job="both"),
        decision("t/job/old", "JOB", None, job="old"),
    ):
        decided.add(one)
    with pytest.raises(UsageError, match="job monday decided a former topic t, which was created again"):
        decided.job("monday")
    for name in ("both", "old"):
        assert decided.job(name) is not None
    assert decided.job("other") is None


def test_the_first_decision_counts_and_an_unknown_action_is_one() -> None:
    decided = DecidedRecords("t", "id")
    for action in ("POSTPONED", "REPLAYED"):
        decided.add(decision("t/0/1", action))
    assert decided.action("t/0/1") == "POSTPONED"
    assert decided.decided_by("j") == 1


def test_only_the_topics_own_records_concern_it() -> None:
    decided = DecidedRecords("t", None)
    assert [decided.concerns(key) for key in (b"t/0/1", b"t2/0/1", b"other", None)] == [True, False, False, False]


def test_a_decision_survives_its_fields() -> None:
    one = decision("t/0/1")._replace(changes={"a": "b"}, result_place="f/0/2")
    assert decision_of(one.as_fields()) == one


def test_a_selection_survives_its_record() -> None:
    one = Selection(
        Action.REPLAYED, {"reasons": ["wrong_type"], "limit": 3}, {0: OffsetBounds(1, 9), 3: OffsetBounds(0, 0)}
    )
    assert selection_of(one.as_changes()) == one
    check_resumed("j", Selection(Action.REPLAYED, {}, {}), one)
    check_resumed("j", one._replace(bounds={}), one)
    for other in (one._replace(options={"limit": 3}), Selection(Action.DISCARDED, {}, {})):
        with pytest.raises(UsageError, match="was begun with other options"):
            check_resumed("j", other, one)
    with pytest.raises(UsageError, match="another release"):
        selection_of({"offsets": "{"})


@pytest.mark.parametrize("name", ["", "1", "a/b", "a b", "a" * 65, "ä"])
def test_a_job_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--job"):
        check_job_name(name)


@pytest.mark.parametrize(
    ("action", "replays", "state"),
    [
        (None, 0, RejectionState.OPEN),
        (None, 2, RejectionState.OPEN),
        (None, 3, RejectionState.PARKED),
        ("REPLAYED", 3, RejectionState.REPLAYED),
        ("DISCARDED", 0, RejectionState.DISCARDED),
        ("POSTPONED", 0, RejectionState.DISCARDED),
    ],
)
def test_the_state_of_a_rejection(action: str | None, replays: int, state: RejectionState) -> None:
    assert rejected("expired", replays=str(replays)).state(action, 3) is state


def test_a_hostile_number_of_replays_is_none() -> None:
    assert [rejected("expired", replays=text).replays for text in ("-1", "1e9", "99999", "x", "7")] == [0, 0, 0, 0, 7]
    assert not math.isnan(rejected("expired").replays)


def test_a_name_with_a_dot_within_a_text_is_part_of_the_text() -> None:
    assert Expression("detail =~ '.*features. x'").matches({"detail": "two features. x"})
    with pytest.raises(UsageError, match="without a dot"):
        Expression("features.age > 3")
