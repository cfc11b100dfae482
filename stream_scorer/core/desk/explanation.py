"""Explanation of a rejected contact: each feature against today's rules, and the command that repairs it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.desk.rejected_record import RejectionState
from stream_scorer.core.scoring.feature_types import compile_rule, describe_range, describe_type, validate
from stream_scorer.core.scoring.types import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_scorer.core.desk.rejected_record import RejectedRecord
    from stream_scorer.core.scoring.feature_types import Feature
    from stream_scorer.core.scoring.types import ContactEvent, Rejected

OK: Final = "ok"
_REPLAY: Final = "stream-scorer rejected replay"
_DISCARD: Final = "stream-scorer rejected discard"
# What an operator does first where a replay alone does not help.
_REMEDIES: Final[Mapping[str, str]] = {
    Reason.UNDECODABLE: "the value is not in a known schema: correct the producer, send the contact again, and discard"
    " this record",
    Reason.INVALID_CONTACT: "an id cannot be changed: correct the producer, send the contact again, and discard this"
    " record",
    Reason.EXPIRED: "the event was too old: raise scoring.max_event_age_s, or give the contact a new time",
    Reason.TOO_MANY_FEATURES: "the contact has more features than model.max_features: remove some",
    Reason.UNSUPPORTED_FEATURE: "the model has no such feature: remove it, or add it to model.features",
    Reason.MISSING_FEATURE: "a feature is missing and has no impute: give it a value",
    Reason.WRONG_TYPE: "a feature has another type than the model: give it a value of the model's type",
    Reason.OUT_OF_RANGE: "a feature is outside the model's limits: give it a value within them",
    Reason.TOO_LARGE: "the request for the contact is too large: remove features, or raise scoring.max_request_bytes",
    Reason.UNKNOWN_MODEL_VERSION: "the platform has no such model version: replay with another one, or without one",
    Reason.REFUSED_BY_API: "the API refused this contact alone: correct what its status means, then replay",
    Reason.NO_RESULT: "the API answered without a result for this contact in every round: replay it once the API is"
    " well",
    Reason.UNPUBLISHABLE: "the output topic refused the score: check the topic's max.message.bytes and rules, then"
    " replay",
}


_DONE: Final[Mapping[RejectionState, str]] = {
    RejectionState.REPLAYED: "it was replayed: `stream-scorer audit show` has the result",
    RejectionState.DISCARDED: "it was discarded",
}


class FeatureCheck(NamedTuple):
    """A feature of a rejected contact.

    Attributes:
        name: its name.
        value: its value; None: null or absent.
        rule: what the model wants.
        finding: ``ok``, ``imputed``, or why it is rejected.
    """

    name: str
    value: Any
    rule: str
    finding: str


class Explanation(NamedTuple):
    """Explanation of one rejected record.

    Attributes:
        place: its place on the rejected topic.
        source: place of the input; empty: the record is not from a scoring worker.
        contact_id: empty if the value cannot be decoded.
        event_id: the same.
        campaign_id: the same; None: the contact has none.
        occurred_at_ms: the same, in Unix milliseconds.
        rejected_at: ISO 8601.
        reason: the first reason of the contract, section 5.
        detail: the sentence about it.
        status: HTTP status of the API.
        replays: how often it was replayed before.
        state: open, replayed, parked or discarded.
        audit: its audit entry; None: it was not found.
        features: each feature; empty if the value cannot be decoded.
        today: whether it passes today's checks, or why not.
        remedy: what to do.
        command: the command that repairs or closes it; empty: it is decided.
    """

    place: str
    source: str
    contact_id: str
    event_id: str
    campaign_id: str | None
    occurred_at_ms: int | None
    rejected_at: str
    reason: str
    detail: str
    status: int | None
    replays: int
    state: RejectionState
    audit: Mapping[str, Any] | None
    features: Sequence[FeatureCheck]
    today: str
    remedy: str
    command: str


def explain(
    rejected: RejectedRecord,
    event: ContactEvent | None,
    model: Mapping[str, Feature],
    today: Rejected | None,
    *,
    state: RejectionState,
    audit: Mapping[str, Any] | None,
) -> Explanation:
    """Explain a rejected record.

    Args:
        rejected: the record.
        event: the contact; None: the value is missing or cannot be decoded.
        model: the features of today's model.
        today: the rejection under today's settings; None: it passes their checks.
        state: its state.
        audit: its audit entry; None: it was not found.
    """
    checks = [] if event is None else feature_checks(event, model)
    origin, done = rejected.origin, _DONE.get(state)
    return Explanation(
        rejected.record.source,
        "" if origin is None else f"{origin.topic}/{origin.partition}/{origin.offset}",
        "" if event is None else event.contact_id,
        "" if event is None else event.event_id,
        None if event is None else event.campaign_id,
        None if event is None else event.occurred_at_ms,
        rejected.rejected_at,
        rejected.reason,
        rejected.detail,
        rejected.status,
        rejected.replays,
        state,
        audit,
        checks,
        "passes the checks before the API" if today is None else f"{', '.join(today.reasons)}: {today.detail}",
        _remedy(rejected, today) if done is None else done,
        repair_command(rejected, event, checks, today) if done is None else "",
    )


def feature_checks(event: ContactEvent, model: Mapping[str, Feature]) -> list[FeatureCheck]:
    """Return each feature of the model and of the contact, the model's first, with its finding."""
    found = []
    for name, feature in model.items():
        rule = compile_rule(feature)
        value = event.features.get(name)
        if value is None:
            finding = (
                "missing, and the model has no impute"
                if rule.impute is None
                else f"imputed: {json.dumps(rule.impute, ensure_ascii=False)}"
            )
        else:
            reason = validate(rule, value)
            finding = OK
            if reason is Reason.WRONG_TYPE:
                finding = describe_type(rule, value)
            elif reason is not None:
                finding = describe_range(rule)
        found.append(FeatureCheck(name, value, rule_text(feature), finding))
    extra = (name for name in event.features if name not in model)
    return found + [FeatureCheck(name, event.features[name], "", "the model has no such feature") for name in extra]


def rule_text(feature: Feature) -> str:
    """Return the rule of a feature in a few words."""
    parts = [str(feature.type)]
    if feature.minimum is not None or feature.maximum is not None:
        low = "" if feature.minimum is None else f"{feature.minimum:g}"
        high = "" if feature.maximum is None else f"{feature.maximum:g}"
        parts.append(f"{low}..{high}")
    if feature.choices is not None:
        parts.append("one of " + ", ".join(map(str, feature.choices)))
    return " ".join(parts)


def repair_command(
    rejected: RejectedRecord, event: ContactEvent | None, checks: Iterable[FeatureCheck], today: Rejected | None
) -> str:
    """Return the command that repairs a record, with placeholders for values; one that cannot be repaired is closed."""
    place = f"--place {shlex.quote(rejected.record.source)}"
    if today is None:
        changes = ["--set model_version="] if rejected.reason == Reason.UNKNOWN_MODEL_VERSION else []
        return " ".join((_REPLAY, place, *changes))
    reasons = set(today.reasons)
    unfit = {Reason.UNDECODABLE} & reasons or (Reason.INVALID_CONTACT in reasons and not _is_settable(today))
    if event is None or unfit:
        return f'{_DISCARD} {place} --note "sent again by the producer"'
    changes = []
    for check in checks:
        if check.finding == "the model has no such feature":
            changes.append(f"--drop {shlex.quote(check.name)}")
        elif check.finding != OK and not check.finding.startswith("imputed"):
            changes.append(f"--set {shlex.quote(f'{check.name}=<{check.rule}>')}")
    if Reason.UNKNOWN_MODEL_VERSION in reasons:
        changes.append("--set model_version=")
    if Reason.EXPIRED in reasons or Reason.INVALID_CONTACT in reasons:
        changes.append("--set 'occurred_at=<time with a zone>'")
    return " ".join((_REPLAY, place, *changes))


def _is_settable(today: Rejected) -> bool:
    """Return whether only the time of an invalid contact is wrong."""
    return today.detail.startswith("occurred_at ")


def _remedy(rejected: RejectedRecord, today: Rejected | None) -> str:
    if today is None and rejected.reason not in _AFTER_REQUEST:
        return "today's settings accept the contact: replay it"
    reason = rejected.reason if today is None else today.reasons[0]
    return _REMEDIES.get(reason, "this release does not know the reason: look at the detail")


# Reasons that are found by a request or later, so that the checks before it do not see them.
_AFTER_REQUEST: Final = frozenset(
    {
        Reason.TOO_LARGE,
        Reason.UNKNOWN_MODEL_VERSION,
        Reason.REFUSED_BY_API,
        Reason.NO_RESULT,
        Reason.UNPUBLISHABLE,
    }
)
