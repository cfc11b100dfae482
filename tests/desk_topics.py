"""Topics of all kinds for tests of the operator's desk: records put there one by one, and commands that read them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kafka_fixture import make_topics

from stream_scorer.core.avro.codec import Codec
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).parents[1]
KINDS = (
    *("features", "scores", "review", "rejected", "audit", "callbacks", "callbacks_rejected", "receipts"),
    "decisions",
)
RETRIES = ("features_retry", "callbacks_retry")
SCHEMAS = {
    "features": SchemaFile.CONTACT_FEATURES,
    "features_retry": SchemaFile.CONTACT_FEATURES,
    "scores": SchemaFile.CONTACT_SCORE,
    "review": SchemaFile.CONTACT_SCORE,
    "rejected": SchemaFile.CONTACT_FEATURES,
    "audit": SchemaFile.BATCH_AUDIT,
    "callbacks": SchemaFile.CAMPAIGN_CALLBACK,
    "callbacks_retry": SchemaFile.CAMPAIGN_CALLBACK,
    "callbacks_rejected": SchemaFile.CAMPAIGN_CALLBACK,
    "receipts": SchemaFile.CALLBACK_RECEIPT,
    "decisions": SchemaFile.DECISION,
}
START_MS = 1_700_000_000_000
START = "2023-11-14T22:13:20.000Z"


def features(contact_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"event-{contact_id}",
        "contact_id": contact_id,
        "features": {"age": 40, "segment": "gold", "share": 0.5, "vip": True, "gone": None},
        "occurred_at": START_MS,
        "campaign_id": "spring",
        "model_version": None,
        "attributes": {"phone": "+49 30 1"},
        **changes,
    }


def score(contact_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"event-{contact_id}",
        "contact_id": contact_id,
        "campaign_id": "spring",
        "model_id": "m",
        "model_version": "v1",
        "score": 0.9,
        "confidence_lower": 0.8,
        "confidence_upper": 0.95,
        "latency_ms": 12.5,
        "occurred_at": START_MS,
        "scored_at": START_MS + 500,
        "imputed_features": [],
        "batch_id": "batch-1",
        "review_reasons": [],
        "attributes": {},
        **changes,
    }


def entry(contact_id: str, source: str, outcome: str = "SCORED", **changes: Any) -> dict[str, Any]:
    return {
        "source": source,
        "contact_id": contact_id,
        "outcome": outcome,
        "score": None if outcome == "REJECTED" else 0.9,
        "confidence_lower": None,
        "confidence_upper": None,
        "imputed_features": [],
        "reasons": ["out_of_range"] if outcome == "REJECTED" else [],
        "event_id": f"event-{contact_id}",
        "features_hash": b"\x01\xff",
        "reused_from": None,
        "billed": True,
        **changes,
    }


def audit(entries: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    def count(outcome: str) -> int:
        return sum(one["outcome"] == outcome for one in entries)

    return {
        "batch_id": "batch-1",
        "chain_id": "chain",
        "sequence": 0,
        "previous_hash": b"",
        "hash": b"\xab" * 32,
        "model_id": "m",
        "model_version": None,
        "request_contacts": len(entries),
        "started_at": START_MS,
        "finished_at": START_MS + 400,
        "latency_ms": 400.0,
        "attempts": 1,
        "api_status": 200,
        "correlation_id": "c-1",
        "counts": {
            "received": len(entries),
            "scored": count("SCORED"),
            "review": count("REVIEW"),
            "rejected": count("REJECTED"),
        },
        "contacts": entries,
        **changes,
    }


def callback(contact_ids: list[str], sources: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "callback_id": "callback-1",
        "campaign_id": "spring",
        "target": "webhook",
        "body": b'{"type":"scores"}',
        "sources": sources,
        "event_ids": [f"event-{one}" for one in contact_ids],
        "contact_ids": contact_ids,
        "planned_at": START_MS + 1000,
        "attempts": 0,
        "not_before": START_MS + 1000,
        **changes,
    }


def receipt(contact_ids: list[str], sources: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "callback_id": "callback-1",
        "campaign_id": "spring",
        "target": "webhook",
        "sources": sources,
        "event_ids": [f"event-{one}" for one in contact_ids],
        "contact_ids": contact_ids,
        "outcome": "DELIVERED",
        "attempts": 2,
        "http_status": 200,
        "finished_at": START_MS + 2000,
        "latency_ms": 30.0,
        "threshold": 0.75,
        **changes,
    }


def decision(place: str, action: str = "REPLAYED", **changes: Any) -> dict[str, Any]:
    return {
        "decision_id": "decision-1",
        "place": place,
        "topic_id": None,
        "action": action,
        "job": "monday",
        "operator": "olga",
        "note": "",
        "decided_at": START_MS + 3000,
        "result_place": None,
        "changes": {},
        **changes,
    }


class DeskTopics:
    """Topics of a test's own, with two partitions each; retry topics of two levels."""

    def __init__(self, servers: str, codecs: Mapping[str, Codec] | None = None) -> None:
        self.servers = servers
        self.name = uuid.uuid4().hex[:10]
        self.topics = {kind: f"{kind.replace('_', '-')}-{self.name}" for kind in (*KINDS, *RETRIES)}
        self.codecs = dict(codecs or {kind: Codec.single_object(load_schema(one)) for kind, one in SCHEMAS.items()})
        names = [self.topics[kind] for kind in KINDS]
        names += [f"{self.topics[kind]}-{level}" for kind in RETRIES for level in (1, 2)]
        admin = AdminClient({"bootstrap.servers": servers})
        # The records have fixed times in the past.
        config = {"retention.ms": "-1"}
        make_topics(admin, [NewTopic(name, 2, 1, config=config) for name in names])
        self.environment = {
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": servers,
            "STREAM_SCORER_KAFKA__GROUP_ID": f"group-{self.name}",
            **{f"STREAM_SCORER_TOPICS__{kind.upper()}": name for kind, name in self.topics.items()},
        }
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})

    @property
    def settings(self) -> Settings:
        return load_settings(environ=self.environment)

    def put(
        self,
        kind: str,
        value: Mapping[str, Any] | bytes | None,
        *,
        key: bytes | None = b"key",
        headers: Iterable[tuple[str, bytes | None]] = (),
        at_ms: int = START_MS,
        partition: int = 0,
        level: int | None = None,
    ) -> str:
        """Put a record on a topic; return its place."""
        topic = self.topics[kind] if level is None else f"{self.topics[kind]}-{level}"
        data = value if isinstance(value, bytes) or value is None else self.codecs[kind].encode(value)
        places: list[str] = []
        self._producer.produce(
            topic,
            data,
            key,
            partition,
            headers=list(headers),
            timestamp=at_ms,
            on_delivery=lambda _error, message: places.append(f"{topic}/{partition}/{message.offset()}"),
        )
        assert self._producer.flush(30) == 0
        return places[0]

    def put_many(self, kind: str, number: int) -> None:
        """Put so many records of other contacts on a topic."""
        value = self.codecs[kind].encode(features("other"))
        for index in range(number):
            self._producer.produce(self.topics[kind], value, b"other", index % 2, timestamp=START_MS)
            self._producer.poll(0)
        assert self._producer.flush(60) == 0

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command as an operator does."""
        return subprocess.Popen(
            [sys.executable, "-m", "stream_scorer", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment},
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )


def rows_of(text: str) -> list[dict[str, Any]]:
    """The rows of JSON Lines."""
    return [json.loads(line) for line in text.splitlines()]
