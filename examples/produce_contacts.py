"""Puts a few contacts on the features topic, with confluent-kafka and fastavro alone.

    python examples/produce_contacts.py --bootstrap-servers 127.0.0.1:9092 --contacts 100

Values are Avro in the single-object encoding: C3 01, the schema's fingerprint (CRC-64-AVRO, little endian), the body.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
import uuid
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Message, Producer
from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

SCHEMA_FILE = Path(__file__).parents[1] / "schemas" / "contact-features.avsc"


def single_object_header(schema: dict[str, Any]) -> bytes:
    """The ten bytes before every value of this schema."""
    # fastavro writes the fingerprint in the order of the bytes on the wire.
    return b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def contact(number: int, chance: random.Random) -> dict[str, Any]:
    """A `ContactFeatures` value. Every fourth contact lacks a feature, which the scorer imputes."""
    return {
        "event_id": str(uuid.uuid4()),
        "contact_id": f"contact-{number:06}",
        "features": {
            "previous_calls": chance.randrange(12),
            "avg_handle_time": round(chance.uniform(30.0, 600.0), 1),
            "last_contact_days": None if number % 4 == 0 else chance.randrange(365),
            "segment_id": chance.choice(["basic", "premium", "trial"]),
        },
        "occurred_at": time.time_ns() // 1_000_000,
        "campaign_id": "spring-2030",
        "model_version": None,
        "attributes": {"phone": f"+49 170 {number:07}"},
    }


def main() -> None:
    """Produce, wait for every delivery report, and say how many are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="contact-features")
    parser.add_argument("--contacts", type=int, default=100)
    arguments = parser.parse_args()

    loaded = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    header, schema = single_object_header(loaded), parse_schema(loaded)
    producer = Producer({"bootstrap.servers": arguments.bootstrap_servers, "enable.idempotence": True})
    failed: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error.str())

    chance = random.Random(7)  # noqa: S311 - made-up contacts need no secrecy
    for number in range(arguments.contacts):
        event = contact(number, chance)
        body = io.BytesIO()
        schemaless_writer(body, schema, event)
        # The contact id as key keeps the events of a contact on one partition, and so in order.
        producer.produce(
            arguments.topic, header + body.getvalue(), key=event["contact_id"].encode(), on_delivery=delivered
        )
        producer.poll(0)
    waiting = producer.flush(30)
    if failed or waiting:
        raise SystemExit(f"{len(failed) + waiting} contacts not delivered: {failed[0] if failed else 'no answer'}")
    print(f"{arguments.contacts} contacts are on {arguments.topic}")


if __name__ == "__main__":
    main()
