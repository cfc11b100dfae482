"""Reads scores as another team would, with confluent-kafka and fastavro alone; prints one JSON object a line.

    python examples/read_scores.py --bootstrap-servers 127.0.0.1:9092 --limit 100

`read_committed` is what makes each score appear exactly once: a reader without it also sees what was aborted.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

SCHEMA_FILE = Path(__file__).parents[1] / "schemas" / "contact-score.avsc"


def single_object_header(schema: dict[str, Any]) -> bytes:
    """The ten bytes before every value of this schema."""
    # fastavro writes the fingerprint in the order of the bytes on the wire.
    return b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def main() -> None:
    """Read until ``--limit`` scores are printed, or until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="contact-scores")
    parser.add_argument("--group", default="read-scores-example")
    parser.add_argument("--limit", type=int, default=None)
    arguments = parser.parse_args()

    loaded = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    header, schema = single_object_header(loaded), parse_schema(loaded)
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap_servers,
            "group.id": arguments.group,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([arguments.topic])
    printed = 0
    try:
        while arguments.limit is None or printed < arguments.limit:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise SystemExit(f"{arguments.topic}: {message.error()}")
            value = message.value() or b""
            if not value.startswith(header):
                raise SystemExit(f"{message.topic()}/{message.partition()}/{message.offset()}: another schema wrote it")
            score: dict[str, Any] = schemaless_reader(io.BytesIO(value[len(header) :]), schema, None)  # type: ignore[assignment]
            source = dict(message.headers() or [])["stream-scorer-source"]
            score["source"] = source.decode() if isinstance(source, bytes) else source
            print(json.dumps(score, default=str), flush=True)
            printed += 1
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
