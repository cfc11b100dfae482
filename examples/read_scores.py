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

SCHEMAS = Path(__file__).parents[1] / "schemas"
NAME = "contact-score.avsc"
HEADER_BYTES = 10


def single_object_header(schema: dict[str, Any]) -> bytes:
    """The ten bytes before every value of this schema."""
    # fastavro writes the fingerprint in the order of the bytes on the wire.
    return b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def schemas() -> tuple[Any, dict[bytes, Any]]:
    """The present schema, and that of each header: records of older releases may be on the topic as well."""
    present = json.loads((SCHEMAS / NAME).read_text(encoding="utf-8"))
    released = [json.loads(file.read_text(encoding="utf-8")) for file in SCHEMAS.glob(f"released/*/{NAME}")]
    writers = {single_object_header(schema): parse_schema(schema) for schema in [*released, present]}
    return parse_schema(present), writers


def main() -> None:
    """Read until ``--limit`` scores are printed, or until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="contact-scores")
    parser.add_argument("--group", default="read-scores-example")
    parser.add_argument("--limit", type=int, default=None)
    arguments = parser.parse_args()

    present, writers = schemas()
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
            writer = writers.get(value[:HEADER_BYTES])
            if writer is None:
                place = f"{message.topic()}/{message.partition()}/{message.offset()}"
                raise SystemExit(
                    f"{place}: a schema wrote it that is not in {SCHEMAS}: take those of the newest release"
                )
            # What an older writer did not have gets its default.
            score: dict[str, Any] = schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), writer, present)  # type: ignore[assignment]
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
