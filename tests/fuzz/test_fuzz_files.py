"""Files of any bytes for `produce` and `score`: rows, bad rows, or `InputError`; and every row can be produced."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_fuzz import MEGABYTE, TEXTS, contact_features, fuzz, mutilated, peak_memory
from test_fuzz_intake import CODECS, INTAKES, MODEL, NAMES, NOW_MS, check, source

from stream_scorer.contact_files.reader import BadRow, ContactFile, FileFormat
from stream_scorer.core.scoring.types import ContactEvent
from stream_scorer.errors import InputError
from stream_scorer.kafka.producer.bulk_producer import event_value

if TYPE_CHECKING:
    from pathlib import Path

TYPES = {feature.name: feature.type for feature in MODEL}
HEADER = "contact_id,event_id,occurred_at,campaign_id,model_version,calls,time,known,segment\n"
CELLS = (
    TEXTS | st.integers().map(str) | st.floats().map(str) | st.sampled_from(["true", "9" * 5_000, "1e999", '"', '""'])
)
NAMES_OF_KEYS = {"contact_id": "contactId", "event_id": "eventId", "occurred_at": "occurredAt"}
LINES = contact_features(NAMES).map(
    lambda event: json.dumps({NAMES_OF_KEYS.get(name, name): value for name, value in event.items()})
)
JSON_LINES = st.lists(
    LINES
    | TEXTS
    | st.sampled_from(['{"contactId":"\\ud800","features":{}}', "[" * 3_000, '{"features":' * 1_500])
    | st.integers().map(lambda number: f'{{"contactId":"c","features":{{"calls":{number}{"0" * 400}}}}}'),
    max_size=5,
).map("\n".join)
CSV = st.lists(st.lists(CELLS, max_size=10).map(",".join), max_size=6).map(lambda rows: HEADER + "\n".join(rows))


def read_all(path: Path, file_format: FileFormat) -> None:
    seen: set[str] = set()
    for row in ContactFile(path, TYPES, now_ms=NOW_MS, file_format=file_format):
        if isinstance(row, BadRow):
            assert row.line >= 1
            assert row.message
            assert "\n" not in row.message
            continue
        assert isinstance(row, ContactEvent)
        seen.add(row.event_id)
        value = CODECS[0].encode(event_value(row))
        record = source(value, row.contact_id.encode())
        check(INTAKES[0][1].examine(record, NOW_MS), record)


@fuzz(120)
@given(st.sampled_from(FileFormat), (CSV | JSON_LINES).map(str.encode) | mutilated((CSV | JSON_LINES).map(str.encode)))
def test_any_file(tmp_path_factory: pytest.TempPathFactory, file_format: FileFormat, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz-of-contacts"
    path.write_bytes(content)
    said = ""
    try:
        read_all(path, file_format)
    except InputError as error:
        said = str(error)
    assert "\n" not in said


LARGE = {
    "an open quote": (FileFormat.CSV, HEADER.encode() + b'c,"' + b"x,\n" * MEGABYTE),
    "one line": (FileFormat.CSV, HEADER.encode() + b"c" * (3 * MEGABYTE)),
    "quotes": (FileFormat.CSV, HEADER.encode() + b'"""' * MEGABYTE),
    "one row of JSON": (FileFormat.JSON_LINES, b'{"contactId":"' + b"c" * (3 * MEGABYTE)),
    "deep JSON": (FileFormat.JSON_LINES, b"[" * (3 * MEGABYTE)),
}


@pytest.mark.parametrize("what", LARGE)
def test_a_large_file_is_read_in_parts(tmp_path: Path, what: str) -> None:
    file_format, content = LARGE[what]
    (tmp_path / "large").write_bytes(content)
    file = ContactFile(tmp_path / "large", TYPES, now_ms=NOW_MS, file_format=file_format)
    began = time.process_time()
    with peak_memory() as peak:
        for number, row in enumerate(file):
            assert isinstance(row, BadRow | ContactEvent)
            if number >= 3:
                break
    assert peak[0] < 64 * MEGABYTE, f"{peak[0] / MEGABYTE:.1f} MB"
    assert time.process_time() - began < 10.0
