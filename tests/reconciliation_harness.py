"""Records of a run of the scoring worker for the reconciliation: inputs, outputs, audit events, and faults in them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_scorer.core.audit.hash_chain import AuditChain, counts_of
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.reconciliation.log_gaps import LogGaps
from stream_scorer.core.reconciliation.scores import (
    Codecs,
    CommittedRange,
    Content,
    Kind,
    Outputs,
    Reconciliation,
    RecordLocation,
)
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_scorer.core.reconciliation.score_report import Report

CODECS = Codecs(
    Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES)),
    Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE)),
    Codec.single_object(load_schema(SchemaFile.BATCH_AUDIT)),
)
TOPICS = {Kind.SCORED: "scores", Kind.REVIEW: "review", Kind.REJECTED: "rejected"}
REASON = "out_of_range"
# Of every batch.
MODEL, VERSION, LATENCY_MS, FINISHED_AT = "m", "v1", 12.5, 2_000


def source(offset: int, partition: int = 0, topic: str = "in") -> str:
    return f"{topic}/{partition}/{offset}"


@dataclass(frozen=True)
class Output:
    """A record of an output topic."""

    source: str
    kind: Kind = Kind.SCORED
    batch_id: str = "b-1"
    lane: int = 0
    was_deferred: bool = False


@dataclass(frozen=True)
class Retry:
    """A record of a retry topic; ``still``: not committed at the second reading either."""

    source: str
    still: bool = True


def number_of(name: str) -> int:
    """Return the offset in a source; one fixed number for an invalid source."""
    digits = name.rpartition("/")[2]
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0


def event_of(name: str, **changes: Any) -> dict[str, Any]:
    """Return the ``ContactFeatures`` of an input; every field depends on the input."""
    fields = {
        "event_id": f"e-{name[:40]}",
        "contact_id": f"c-{name[:40]}",
        "features": {"age": number_of(name)},
        "occurred_at": 1_000 + number_of(name),
        "campaign_id": f"campaign-{number_of(name) % 3}",
        "model_version": VERSION,
        "attributes": {"phone": f"+49-{number_of(name)}", "language": "de"},
    }
    return {**fields, **changes}


def input_content(name: str, **changes: Any) -> Content:
    event = event_of(name, **changes)
    return Content(event["contact_id"].encode(), CODECS.contact.encode(event))


def numbers_of(name: str) -> dict[str, float]:
    score = 0.25 + (number_of(name) % 500) / 1_000
    return {"score": score, "confidence_lower": score - 0.1, "confidence_upper": score + 0.1}


def reasons_of(kind: Kind) -> list[str]:
    return {Kind.SCORED: [], Kind.REVIEW: ["wide_interval"], Kind.REJECTED: [REASON]}[kind]


def score_of(output: Output, **changes: Any) -> dict[str, Any]:
    """The ``ContactScore`` of an output."""
    event = event_of(output.source)
    del event["features"]
    fields = {
        **event,
        **numbers_of(output.source),
        "model_id": MODEL,
        "latency_ms": LATENCY_MS,
        "scored_at": FINISHED_AT,
        "imputed_features": ["income"],
        "batch_id": output.batch_id,
        "review_reasons": reasons_of(output.kind),
    }
    return {**fields, **changes}


def output_content(output: Output, **changes: Any) -> Content:
    if output.kind is Kind.REJECTED:
        return input_content(output.source)._replace(reason=REASON)
    fields = score_of(output, **changes)
    return Content(fields["contact_id"].encode(), CODECS.score.encode(fields))


def entry(output: Output, **changes: Any) -> dict[str, Any]:
    """The ``AuditedContact`` of an output."""
    none = {"score": None, "confidence_lower": None, "confidence_upper": None}
    rejected = output.kind is Kind.REJECTED
    fields = {
        "source": output.source,
        "contact_id": event_of(output.source)["contact_id"],
        "outcome": output.kind.name,
        **(none if rejected else numbers_of(output.source)),
        "imputed_features": [] if rejected else ["income"],
        "reasons": reasons_of(output.kind),
        "event_id": event_of(output.source)["event_id"],
        "features_hash": None if rejected else b"h",
        "reused_from": None,
        "billed": not rejected,
    }
    return {**fields, **changes}


def event(outputs: Iterable[Output], batch_id: str = "b-1", **changes: Any) -> dict[str, Any]:
    """Return the ``BatchAudit`` of a request, not linked to a chain."""
    return audit_of([entry(output) for output in outputs], batch_id, **changes)


def audit_of(entries: list[dict[str, Any]], batch_id: str = "b-1", **changes: Any) -> dict[str, Any]:
    fields = {
        "batch_id": batch_id,
        "model_id": MODEL,
        "model_version": VERSION,
        "request_contacts": len(entries),
        "started_at": 0,
        "finished_at": FINISHED_AT,
        "latency_ms": LATENCY_MS,
        "attempts": 1,
        "api_status": 200,
        "correlation_id": None,
        "counts": counts_of(entries),
        "contacts": entries,
    }
    return {**fields, **changes}


def chained(*events: dict[str, Any], chain_id: str = "chain") -> list[bytes]:
    return list(AuditChain(chain_id, CODECS.audit).plan(events).values)


def make_judge(spans: Mapping[int, CommittedRange], gaps: LogGaps | None = None, **options: Any) -> Reconciliation:
    outputs = Outputs(TOPICS, "audit", LogGaps() if gaps is None else gaps)
    return Reconciliation("in", "group", spans, CODECS, outputs, **options)


def judged(
    inputs: Mapping[int, Iterable[int]],
    outputs: Iterable[Output | tuple[Output, Content]],
    audits: Iterable[bytes],
    *,
    spans: Mapping[int, CommittedRange],
    committed: Mapping[int, int] | None = None,
    deferred: Iterable[Retry | tuple[Retry, Content]] = (),
    contents: Mapping[str, Content] | None = None,
    **options: Any,
) -> Report:
    """Reconcile a run.

    Args:
        inputs: offsets by partition.
        outputs: records of output topics, from offset 100 on; with a content where it differs from the correct one.
        audits: values of the audit topic.
        spans: committed ranges of the group.
        committed: at the second reading, if it differs from the first.
        deferred: records of a retry topic.
        contents: of inputs with other contents, by source.
        options: of the reconciliation.
    """
    judge = make_judge(spans, **options)
    for partition, offsets in inputs.items():
        for offset in offsets:
            name = source(offset, partition)
            judge.input(partition, offset, (contents or {}).get(name) or input_content(name))
    places = itertools.count(100)
    for one in outputs:
        output, content = one if isinstance(one, tuple) else (one, output_content(one))
        place = RecordLocation(TOPICS[output.kind], output.lane, next(places))
        judge.output(output.kind, output.source, output.batch_id, place, content, was_deferred=output.was_deferred)
    for number, value in enumerate(audits):
        judge.audit(value, RecordLocation("audit", 0, number))
    for number, one in enumerate(deferred):
        retry, content = one if isinstance(one, tuple) else (one, input_content(one.source))
        judge.deferred(retry.source, RecordLocation("retry-1", 0, number), content, still=retry.still)
    return judge.result({number: span.committed for number, span in spans.items()} if committed is None else committed)
