"""Baseline of the benchmark: a minimal hand-written loop without any safeguards.

The same calls to confluent-kafka, fastavro, orjson and requests, with the same properties for the Kafka clients, the
same eight requests at once, the same window of contacts and the same commit interval. Missing on purpose: every check
of features, answers and intervals, matching by id, imputation, a ledger, retries, quota, deadlines, the hash chain and
metrics. An answer that is not 200, a lost transaction or a rebalance ends it. Reads the worker's settings; runs until
SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import time
import uuid
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import Any, Final, NamedTuple

import orjson
import requests
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from requests.adapters import HTTPAdapter

from stream_scorer.core.avro.codec import SINGLE_OBJECT_HEADER_BYTES, single_object_header
from stream_scorer.genesys.wire import score_path
from stream_scorer.kafka.client.config import consumer_config, producer_config
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import Settings, load_settings

PATIENCE_S: Final = 30.0


class Batch(NamedTuple):
    """One request: its contacts as they were read, and what its thread brought back."""

    messages: list[Message]
    events: list[dict[str, Any]]
    answer: Future[tuple[list[dict[str, Any]], float]]


class Schema(NamedTuple):
    """A schema as fastavro wants it, and the ten bytes before each value."""

    parsed: Any
    header: bytes

    @classmethod
    def load(cls, file: SchemaFile) -> Schema:
        # Timestamps stay integers: a datetime would be made only to be encoded again.
        schema: Any = orjson.loads(orjson.dumps(load_schema(file)).replace(b',"logicalType":"timestamp-millis"', b""))
        return cls(parse_schema(schema), single_object_header(schema))

    def encode(self, value: dict[str, Any]) -> bytes:
        out = BytesIO()
        out.write(self.header)
        schemaless_writer(out, self.parsed, value)
        return out.getvalue()


class Api:
    """One session, one token, no retries."""

    def __init__(self, settings: Settings) -> None:
        genesys = settings.genesys
        self._url = genesys.api_url + score_path(genesys.model_id or "")
        self._timeout_s = genesys.timeout_s
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_maxsize=settings.scoring.max_in_flight))
        secret = genesys.client_secret.get_secret_value() if genesys.client_secret else ""
        token = self._session.post(
            f"{genesys.token_url}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(genesys.client_id or "", secret),
            timeout=self._timeout_s,
        ).json()["access_token"]
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self, body: bytes) -> tuple[list[dict[str, Any]], float]:
        began = time.monotonic()
        answer = self._session.post(self._url, data=body, headers=self._headers, timeout=self._timeout_s)
        answer.raise_for_status()
        return orjson.loads(answer.content)["results"], (time.monotonic() - began) * 1000


class BareLoop:
    """Consume, ask, produce; batches are committed in the order in which they were read."""

    def __init__(self, settings: Settings) -> None:
        self._model_id = settings.genesys.model_id
        self._topics = settings.topics
        self._limits = settings.scoring
        self._features = Schema.load(SchemaFile.CONTACT_FEATURES)
        self._score = Schema.load(SchemaFile.CONTACT_SCORE)
        self._audit = Schema.load(SchemaFile.BATCH_AUDIT)
        self._api = Api(settings)
        self._pool = ThreadPoolExecutor(self._limits.max_in_flight)
        self._producer = Producer(producer_config(settings, settings.kafka.transactional_id))
        self._producer.init_transactions(PATIENCE_S)
        # The worker writes where its group begins before it joins; here librdkafka looks for it.
        self._consumer = Consumer({**consumer_config(settings), "auto.offset.reset": "earliest"})
        self._consumer.subscribe([settings.topics.features])
        self._asked: deque[Batch] = deque()
        self._messages: list[Message] = []
        self._committed_at = 0.0

    def run(self) -> None:
        while True:
            self._read()
            due = time.monotonic() - self._committed_at >= self._limits.commit_interval_ms / 1000
            if due and self._asked and self._asked[0].answer.done():
                self._commit()

    def _read(self) -> None:
        contacts = self._limits.max_contacts
        if (len(self._asked) + 1) * contacts > self._limits.max_uncommitted:
            time.sleep(0.002)
            return
        self._messages += self._consumer.consume(contacts - len(self._messages), 0.005)
        if len(self._messages) < contacts:
            return
        messages, self._messages = self._messages, []
        events = [self._decode(message) for message in messages]
        asked = [{"contactId": event["contact_id"], "features": event["features"]} for event in events]
        self._asked.append(Batch(messages, events, self._pool.submit(self._api.ask, orjson.dumps({"contacts": asked}))))

    def _decode(self, message: Message) -> dict[str, Any]:
        stream = BytesIO(message.value() or b"")
        stream.seek(SINGLE_OBJECT_HEADER_BYTES)
        event: Any = schemaless_reader(stream, self._features.parsed, None)
        return dict[str, Any](event)

    def _commit(self) -> None:
        offsets: dict[int, int] = {}
        self._producer.begin_transaction()
        while self._asked and self._asked[0].answer.done():
            batch = self._asked.popleft()
            self._publish(batch)
            for message in batch.messages:
                offsets[message.partition() or 0] = (message.offset() or 0) + 1
        committed = [TopicPartition(self._topics.features, number, offset) for number, offset in offsets.items()]
        self._producer.send_offsets_to_transaction(committed, self._consumer.consumer_group_metadata(), PATIENCE_S)
        self._producer.commit_transaction(PATIENCE_S)
        self._committed_at = time.monotonic()

    def _publish(self, batch: Batch) -> None:
        results, latency_ms = batch.answer.result()
        batch_id = str(uuid.uuid4())
        now_ms = time.time_ns() // 1_000_000
        entries: list[dict[str, Any]] = []
        for message, event, result in zip(batch.messages, batch.events, results, strict=True):
            source = f"{message.topic()}/{message.partition()}/{message.offset()}"
            interval = result["confidenceInterval"]
            value = {
                "event_id": event["event_id"],
                "contact_id": event["contact_id"],
                "campaign_id": event["campaign_id"],
                "model_id": self._model_id,
                "model_version": event["model_version"],
                "score": result["score"],
                "confidence_lower": interval["lower"],
                "confidence_upper": interval["upper"],
                "latency_ms": latency_ms,
                "occurred_at": event["occurred_at"],
                "scored_at": now_ms,
                "imputed_features": [],
                "batch_id": batch_id,
                "review_reasons": [],
                "attributes": event["attributes"],
            }
            headers: Any = [("stream-scorer-source", source.encode()), ("stream-scorer-batch", batch_id.encode())]
            self._producer.produce(self._topics.scores, self._score.encode(value), message.key(), headers=headers)
            entries.append(
                {
                    "source": source,
                    "contact_id": event["contact_id"],
                    "outcome": "SCORED",
                    "score": result["score"],
                    "confidence_lower": interval["lower"],
                    "confidence_upper": interval["upper"],
                    "imputed_features": [],
                    "reasons": [],
                }
            )
        audit = self._audit_event(batch_id, entries, now_ms, latency_ms)
        self._producer.produce(self._topics.audit, self._audit.encode(audit), b"bare")

    def _audit_event(
        self, batch_id: str, entries: list[dict[str, Any]], now_ms: int, latency_ms: float
    ) -> dict[str, Any]:
        size = len(entries)
        return {
            "batch_id": batch_id,
            "chain_id": "bare",
            "sequence": 0,
            "previous_hash": b"",
            "hash": b"",
            "model_id": self._model_id,
            "model_version": None,
            "request_contacts": size,
            "started_at": now_ms,
            "finished_at": now_ms,
            "latency_ms": latency_ms,
            "attempts": 1,
            "api_status": 200,
            "correlation_id": None,
            "counts": {"received": size, "scored": size, "review": 0, "rejected": 0},
            "contacts": entries,
        }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    BareLoop(load_settings(None)).run()
