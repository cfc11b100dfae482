from __future__ import annotations

import errno
import gzip
import io
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_scorer.contact_files.lines import MAX_ROW_BYTES
from stream_scorer.contact_files.reader import BadRow, ContactFile, FileFormat, format_of
from stream_scorer.core.scoring.types import ContactEvent
from stream_scorer.errors import InputError, UsageError

if TYPE_CHECKING:
    from stream_scorer.core.scoring.feature_types import FeatureType

TYPES: dict[str, FeatureType] = {"age": "integer", "balance": "number", "known": "boolean", "job": "string"}
NOW_MS = 1_700_000_000_000


CASES = Path(__file__).parents[1] / "cases" / "files"


def read(
    path: Path, file_format: FileFormat | None = None, types: dict[str, FeatureType] = TYPES
) -> list[ContactEvent | BadRow]:
    return list(ContactFile(path, types, now_ms=NOW_MS, file_format=file_format))


# Without a time, so that a test has the same name in each process.
GZIP = gzip.compress(b"contact_id\n" + b"a\n" * 50, mtime=0)


class Reading:
    """A file of one format in a folder of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, content: str | bytes) -> list[ContactEvent | BadRow]:
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read(self.path)

    def good(self, content: str | bytes) -> list[ContactEvent]:
        rows = self(content)
        assert all(isinstance(row, ContactEvent) for row in rows), rows
        return [row for row in rows if isinstance(row, ContactEvent)]

    def bad(self, content: str | bytes) -> BadRow:
        [row] = (row for row in self(content) if isinstance(row, BadRow))
        return row


@pytest.fixture
def csv(tmp_path: Path) -> Reading:
    return Reading(tmp_path / "contacts.csv")


@pytest.fixture
def jsonl(tmp_path: Path) -> Reading:
    return Reading(tmp_path / "contacts.jsonl")


class TestCsv:
    def test_cells_are_typed_by_the_model_and_empty_is_null(self, csv: Reading) -> None:
        rows = csv.good("contact_id,age,balance,known,job\nc-1,40,1.5,TRUE,clerk\nc-2,,,,\nc-3,40.0,7,false, x \n")
        assert [row.contact_id for row in rows] == ["c-1", "c-2", "c-3"]
        assert repr([row.features for row in rows]) == repr(
            [
                {"age": 40, "balance": 1.5, "known": True, "job": "clerk"},
                {"age": None, "balance": None, "known": None, "job": None},
                {"age": 40, "balance": 7, "known": False, "job": " x "},
            ]
        )

    def test_a_string_is_never_parsed(self, csv: Reading) -> None:
        assert [row.features["job"] for row in csv.good("contact_id,job\na,12\nb,true\nc,null\n")] == [
            "12",
            "true",
            "null",
        ]

    def test_the_other_columns(self, csv: Reading) -> None:
        [full, empty] = csv.good(
            "campaign_id,contact_id,event_id,occurred_at,model_version\n"
            "spring,c-1,e-1,2024-02-29T12:00:00.5+01:00,v2\n,c-2,,,\n"
        )
        assert full == ContactEvent("e-1", "c-1", {}, 1_709_204_400_500, "spring", "v2")
        assert empty._replace(event_id="") == ContactEvent("", "c-2", {}, NOW_MS, None, None)

    @pytest.mark.parametrize(
        ("written", "ms"),
        [
            ("1700000000123", 1_700_000_000_123),
            ("631152000000", 631_152_000_000),
            ("4133980799999", 4_133_980_799_999),
            ("1970-01-01T00:00:01Z", 1000),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            ("2026-11-29T12:00:00.123456789Z", 1_795_953_600_123),
        ],
    )
    def test_times(self, csv: Reading, written: str, ms: int) -> None:
        assert [row.occurred_at_ms for row in csv.good(f"contact_id,occurred_at\nc,{written}\n")] == [ms]

    @pytest.mark.parametrize("written", ["yesterday", "2024-02-30T00:00:00Z", "2024-02-28T12:00:00", "1e9", "46355.5"])
    def test_unsupported_times_are_bad_rows(self, csv: Reading, written: str) -> None:
        assert csv.bad(f"contact_id,occurred_at\nc,{written}\n").message.startswith("occurred_at must be a time with")

    @pytest.mark.parametrize(
        ("written", "problem"),
        [
            ("20261129", "a date without separators"),
            ("1796000000", "in seconds"),
            ("1796000000000000", "in microseconds"),
            ("1796000000000000000", "in nanoseconds"),
            ("0", "outside 1990 to 2100"),
            ("-1", "outside 1990 to 2100"),
            ("20261129120000", "outside 1990 to 2100"),
            ("46355", "outside 1990 to 2100"),
            ("631151999999", "outside 1990 to 2100"),
            ("4133980800000", "outside 1990 to 2100"),
            ("9" * 30, "outside 1990 to 2100"),
            ("9" * 5000, "outside 1990 to 2100"),
            ("9999-12-31T23:59:59.9999999Z", "outside the years 1 to 9999"),
            ("9999-12-31T23:59:59-01:00", "outside the years 1 to 9999"),
            ("0001-01-01T00:00:00+00:01", "outside the years 1 to 9999"),
        ],
    )
    def test_a_time_out_of_range_or_not_in_milliseconds(
        self, csv: Reading, jsonl: Reading, written: str, problem: str
    ) -> None:
        message = f"occurred_at is {problem}: write a time with its zone, such as 2030-01-31T06:00:00Z, or milliseconds"
        assert csv.bad(f"contact_id,occurred_at\nc,{written}\n").message.startswith(message)
        number = (
            written if written.lstrip("-").isdigit() and not written.startswith("0") and len(written) < 20 else None
        )
        assert jsonl.bad(
            f'{{"contactId": "c", "features": {{}}, "occurredAt": {number or json.dumps(written)}}}'
        ).message.startswith(message)

    def test_the_times_of_the_field_trial(self) -> None:
        rows = read(CASES / "times.csv", types={"previous_calls": "integer"})
        assert [row.line if isinstance(row, BadRow) else row.occurred_at_ms for row in rows] == [
            *(2, 3, -62_135_596_800_000, 1_795_953_600_123, 1_795_953_600_000, 1_795_953_600_000),
            *(8, 9, 10, 1_795_953_600_000, 12),
        ]

    @pytest.mark.parametrize(
        ("column", "cell", "message"),
        [
            ("age", "40.5", "'age' must be an integer"),
            ("age", "forty", "'age' must be an integer"),
            ("age", "4_0", "'age' must be an integer"),
            ("age", "٤٠", "'age' must be an integer"),
            ("age", "9223372036854775808", "'age' must be an integer"),
            ("age", "9" * 5000, "'age' must be an integer"),
            ("age", "1e400", "'age' must be an integer"),
            ("balance", "nan", "'balance' must be a number"),
            ("balance", "inf", "'balance' must be a number"),
            ("balance", "1e999", "'balance' must be a number"),
            ("balance", '"1,5"', "'balance' must be a number, with a point before its fraction"),
            ("balance", "NaN", "'balance' must be a number, with nothing else; leave it empty where it is missing"),
            ("balance", "0x10", "'balance' must be a number"),
            ("known", "1", "'known' must be true or false"),
            ("known", "yes", "'known' must be true or false"),
        ],
    )
    def test_a_cell_that_does_not_parse(self, csv: Reading, column: str, cell: str, message: str) -> None:
        bad = csv.bad(f"contact_id,{column}\nc-1,\nc-2,{cell}\nc-3,\n")
        assert bad.line == 3
        assert bad.message.startswith(message)
        assert cell not in bad.message

    def test_a_bad_row_affects_no_other_row(self, csv: Reading) -> None:
        rows = csv("contact_id,age\na,1\nb\nc,1,2\n,4\nd,x\ne,5\n")
        assert [row if isinstance(row, BadRow) else row.contact_id for row in rows] == [
            "a",
            BadRow(3, "has 1 cells, but the header names 2 columns: write a separator for each empty cell"),
            BadRow(4, "has 3 cells, but the header names 2 columns: a cell with a comma inside needs quotation marks"),
            BadRow(5, "contact_id is empty"),
            BadRow(6, "'age' must be an integer, with nothing else; leave it empty where it is missing"),
            "e",
        ]

    def test_quotes(self, csv: Reading) -> None:
        rows = csv.good('contact_id,job,age\r\n"a,b","say ""hi""",1\r\nc,"two\r\nlines",2\r\nd,plain,3\r\n')
        assert [(row.contact_id, row.features["job"]) for row in rows] == [
            ("a,b", 'say "hi"'),
            ("c", "two\r\nlines"),
            ("d", "plain"),
        ]

    @pytest.mark.parametrize("stray", ['b,"never closed,1', 'b,5" pipe,1', 'b,"x"y"z,1'])
    def test_a_stray_quote_affects_only_its_row(self, csv: Reading, stray: str) -> None:
        following = "".join(f"c-{number},job,{number}\n" for number in range(500))
        rows = csv(f"contact_id,job,age\na,j,1\n{stray}\n{following}")
        assert [row for row in rows if isinstance(row, BadRow)] == [BadRow(3, "has a quote that is not closed")]
        assert len(rows) == 502

    def test_two_stray_quotes_affect_two_rows(self, csv: Reading) -> None:
        rows = csv('contact_id,job\na,"x\nb,j\nc,y"z\nd,j\n')
        assert [row.line if isinstance(row, BadRow) else row.contact_id for row in rows] == [2, "b", 4, "d"]

    def test_byte_order_mark_blank_lines_and_no_last_line_end(self, csv: Reading) -> None:
        assert [row.contact_id for row in csv.good(b"\xef\xbb\xbfcontact_id,age\r\n\r\na,1\n\n  \nb,2")] == ["a", "b"]

    def test_bytes_that_are_not_utf8(self, csv: Reading) -> None:
        rows = csv(b"contact_id,job\na,caf\xe9\nb,caf\xc3\xa9\n")
        assert rows[0] == BadRow(2, "is not UTF-8: save the file as CSV UTF-8")
        assert isinstance(rows[1], ContactEvent)
        assert rows[1].features == {"job": "café"}

    def test_a_row_that_is_too_long(self, csv: Reading) -> None:
        rows = csv("contact_id,job\na," + "x" * (3 * MAX_ROW_BYTES) + "\nb,j\n")
        assert rows[0] == BadRow(2, "is longer than 1048576 bytes")
        assert [row.contact_id for row in rows if isinstance(row, ContactEvent)] == ["b"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", ":1: the file is empty"),
            (b"\n\n", ":1: the file is empty"),
            (b"id,age\na,1\n", ":1: the header has no column contact_id"),
            (b"contact_id:age\na:1\n", ":1: the header has no column contact_id; columns are separated by commas"),
            (b"name;Contact ID\na;1\n", ":1: the header has no column contact_id; columns are separated by commas"),
            (b"CONTACT_ID,age\n", ":1: the header has no column contact_id: write contact_id, not 'CONTACT_ID'"),
            (b"contactId,age\n", ":1: the header has no column contact_id: write contact_id, not 'contactId'"),
            (b'age,"Contact ID"\n', ":1: the header has no column contact_id: write contact_id, not 'Contact ID'"),
            (b",contact_id\n0,a\n", ":1: column 1 has no name: name it or leave it out (pandas: to_csv(index=False))"),
            (b"Unnamed: 0,contact_id\n0,a\n", ":1: column 'Unnamed: 0' is no feature"),
            (b"sep=;\ncontact_id,age\n", ":2: the header has no column contact_id"),
            (b"sep=;\n", ":1: the file is empty"),
            (b"contact_id,age,age\n", ":1: the header names column 'age' twice"),
            (b"contact_id,shoe_size\n", ":1: column 'shoe_size' is no feature of the model (age, balance, known, job)"),
            (b'contact_id,"age\n', ":1: has a quote that is not closed"),
            (b"PK\x03\x04" + bytes(30), ": is an Excel workbook or a zip archive: save it as CSV UTF-8, or unpack it"),
            (b"PAR1" + bytes(30), ": is a Parquet file: export it as CSV or JSON Lines"),
            (b"Obj\x01" + bytes(30), ": is an Avro container file: export it as CSV or JSON Lines"),
            (b"\x28\xb5\x2f\xfd" + bytes(30), ": is compressed: unpack it, or use gzip"),
            (b"<!DOCTYPE html>", ": is HTML or XML: save it as CSV UTF-8"),
            (b"<table border=1><tr><td>contact_id", ": is HTML or XML: save it as CSV UTF-8"),  # Salesforce's .xls
            (b"\x1f\x8b" + bytes(30), ": is no whole gzip file: transfer or compress it again"),
            (
                gzip.compress(b"contact_id\n" + b"a\n" * 50, mtime=0)[:-9],
                ": is no whole gzip file: transfer or compress it",
            ),
            ("contact_id\n".encode("utf-32-le") + b"\xff" * 8, ": is not valid UTF-32, as which it begins: save it as"),
        ],
    )
    def test_a_file_that_cannot_be_used(self, csv: Reading, content: bytes, message: str) -> None:
        with pytest.raises(InputError) as caught:
            csv(content)
        assert str(caught.value).startswith(f"{csv.path}{message}")


class TestAttributes:
    def test_columns_and_an_object(self, csv: Reading, jsonl: Reading) -> None:
        header = "contact_id,age,attributes.phone,attributes.Anrede,attributes.a.b"
        first, second = csv.good(header + '\na,3,+49 170 5550100,"Frau, Dr.",x\nb,,,"=""0049""",\n')
        assert first.attributes == {"phone": "+49 170 5550100", "Anrede": "Frau, Dr.", "a.b": "x"}
        assert (first.features, second.attributes) == ({"age": 3}, {"Anrede": "0049"})
        line = {"contactId": "a", "features": {"age": 3}, "attributes": {"phone": "+49", "none": None, "empty": ""}}
        [event] = jsonl.good(json.dumps(line))
        assert event.attributes == {"phone": "+49", "empty": ""}
        [event] = jsonl.good('{"contact_id": "a", "age": 3, "attributes": null}')
        assert (event.features, event.attributes) == ({"age": 3}, {})

    def test_a_feature_of_that_name_stays_a_feature(self, tmp_path: Path) -> None:
        path = tmp_path / "contacts.csv"
        path.write_text("contact_id,attributes.x,attributes.y\na,1,2\n")
        [event] = read(path, types={"attributes.x": "integer"})
        assert isinstance(event, ContactEvent)
        assert (event.features, event.attributes) == ({"attributes.x": 1}, {"y": "2"})

    @pytest.mark.parametrize("cell", ["4.91705E+11", "4917055501.0"])
    def test_a_number_reformatted_by_a_spreadsheet(self, csv: Reading, cell: str) -> None:
        row = csv.bad(f"contact_id,attributes.phone\na,{cell}\n")
        assert "'attributes.phone'" in row.message
        assert cell not in row.message

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({str(number): "" for number in range(65)}, "attributes are 65, more than the 64 allowed"),
            ({"k": "x" * 16_384}, "attributes have 16385 bytes, more than the 16384 allowed"),
            ({"k": "é" * 8_192}, "attributes have 16385 bytes, more than the 16384 allowed"),
            ({"phone": 49}, "attribute 'phone' must be a string: put it into quotation marks"),
            ({"phone": ["+49"]}, "attribute 'phone' must be a string: put it into quotation marks"),
            (["phone"], "attributes must be an object of strings"),
            ("phone", "attributes must be an object of strings"),
        ],
    )
    def test_a_row_over_the_limits(self, jsonl: Reading, attributes: Any, message: str) -> None:
        row = jsonl.bad(json.dumps({"contactId": "a", "features": {}, "attributes": attributes}))
        assert row.message.startswith(message)

    def test_the_limits_themselves_are_allowed(self, csv: Reading, jsonl: Reading) -> None:
        for within in ({str(number): "x" for number in range(64)}, {"k": "x" * 16_383}):
            [event] = jsonl.good(json.dumps({"contactId": "a", "features": {}, "attributes": within}))
            assert event.attributes == within
        names = [f"attributes.{number}" for number in range(65)]
        rows = csv(f"contact_id,{','.join(names)}\na{',x' * 65}\nb{',x' * 64},\n")
        assert isinstance(rows[0], BadRow)
        assert isinstance(rows[1], ContactEvent)

    def test_a_column_without_a_name_after_the_prefix(self, csv: Reading) -> None:
        with pytest.raises(InputError, match="is no feature of the model"):
            csv("contact_id,attributes.\na,x\n")


class TestJsonLines:
    def test_the_librarys_dict(self, jsonl: Reading) -> None:
        [row] = jsonl.good('{"contactId": "c-1", "features": {"age": 40, "balance": 2.0, "known": false, "x": "1"}}\n')
        assert repr(row.features) == "{'age': 40, 'balance': 2.0, 'known': False, 'x': '1'}"
        assert (row.contact_id, row.occurred_at_ms, row.campaign_id) == ("c-1", NOW_MS, None)

    @pytest.mark.parametrize(
        "line",
        [
            '{"contactId":"c","features":{},"eventId":"e","occurredAt":1700000000005,"campaignId":"k","modelVersion":"v"}',
            '{"contact_id":"c","features":{},"event_id":"e","occurred_at":"1700000000005","campaign_id":"k","model_version":"v"}',
        ],
    )
    def test_both_spellings(self, jsonl: Reading, line: str) -> None:
        assert jsonl.good(line) == [ContactEvent("e", "c", {}, 1_700_000_000_005, "k", "v")]

    def test_null_is_the_same_as_absent(self, jsonl: Reading) -> None:
        [row] = jsonl.good('{"contactId": "c", "features": {"age": null}, "eventId": null, "occurredAt": null}')
        assert row.features == {"age": None}
        assert row.occurred_at_ms == NOW_MS

    def test_an_integer_beyond_avros_long_is_the_nearest_double(self, jsonl: Reading) -> None:
        [row] = jsonl.good('{"contactId": "c", "features": {"a": 9223372036854775807, "b": 9223372036854775808}}')
        assert repr(row.features) == "{'a': 9223372036854775807, 'b': 9.223372036854776e+18}"

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "is not JSON (character 3): write one object a line"),
            ("[", "is not JSON (character 3): a JSON array is not read; write one object a line"),
            ('[{"contactId": "c"}]', "is a JSON array: write one object a line"),
            ('{"contactId": "c", "features": {"age": NaN}}', "is not JSON (character 40): write null, not NaN"),
            (
                '{"contactId": "c", "features": {"age": Infinity}}',
                "is not JSON (character 40): write null, not Infinity",
            ),
            ('{"contactId": "c", "features": {"age": -Infinity}}', "is not JSON (character 41): write null, not -Inf"),
            ("{'contactId': 'c'}", 'is not JSON (character 2): write one object a line, such as {"contactId": "…"'),
            ('{"contactId": "c", "features": {}} {}', "is not JSON (character 36): write one object a line"),
            ('{"contactId": "c", "features": {"age": NaN}}', "is not JSON"),
            ('{"contactId": "c", "features": {"job": "\\ud800"}}', "is not JSON"),
            ('{"a":' * 100_000, "is not JSON"),
            ("[" * 100_000 + "]" * 100_000, "is not JSON"),
            ("[]", "is a JSON array"),
            ('{"contactId": "c", "features": null}', 'has no object "features"'),
            ('{"contactId": "c", "shoe_size": 43}', 'has no object "features"'),
            ('{"contactId": "c", "age": 4, "shoe_size": 43}', "has an unknown key 'shoe_size'"),
            ('"c"', "is no JSON object"),
            ('{"contactId": "c"}', 'has no object "features"'),
            ('{"contactId": "c", "features": [1]}', 'has no object "features"'),
            ('{"features": {}}', "contact_id is empty"),
            ('{"contactId": "", "features": {}}', "contact_id is empty"),
            ('{"contactId": 7, "features": {}}', "contactId must be a string"),
            ('{"contactId": "c", "contact_id": "d", "features": {}}', "has both contactId and contact_id"),
            ('{"contactId": "c", "features": {}, "feature": 1}', "has an unknown key 'feature'"),
            ('{"contactId": "c", "features": {"age": [1]}}', "feature 'age' must be a number, a string"),
            ('{"contactId": "c", "features": {}, "occurredAt": "today"}', "occurred_at must be a time"),
            ('{"contactId": "c", "features": {}, "occurredAt": true}', "occurredAt must be a string"),
            ('{"contactId": "c", "features": {}, "campaignId": 3}', "campaignId must be a string"),
        ],
    )
    def test_bad_lines(self, jsonl: Reading, line: str, message: str) -> None:
        bad = jsonl.bad('{"contactId": "a", "features": {}}\n' + line + '\n{"contactId": "b", "features": {}}\n')
        assert bad.line == 2
        assert bad.message.startswith(message)
        assert len(bad.message) < 300
        assert "\n" not in bad.message

    def test_blank_lines_crlf_and_byte_order_mark(self, jsonl: Reading) -> None:
        content = b'\xef\xbb\xbf{"contactId": "a", "features": {}}\r\n\r\n{"contactId": "b", "features": {}}'
        assert [row.contact_id for row in jsonl.good(content)] == ["a", "b"]

    def test_an_empty_file_has_no_contacts(self, jsonl: Reading) -> None:
        assert jsonl("") == []

    def test_a_line_that_is_too_long(self, jsonl: Reading) -> None:
        assert jsonl.bad(b" " * (MAX_ROW_BYTES + 1) + b"\n").message == "is longer than 1048576 bytes"


class TestExports:
    """Exports of spreadsheets, data frames and CRMs."""

    @pytest.mark.parametrize(
        ("name", "contacts"),
        [
            ("cr-only.csv", {"m-1": 10.5, "m-2": 20.5}),
            ("sep.csv", {"s-1": None}),
            ("trailing.csv", {"t-1": None, "t-2": None}),
            ("plain.csv.gz", {"f-1": None}),
        ],
    )
    def test_the_files_of_the_field_trial(self, name: str, contacts: dict[str, float | None]) -> None:
        rows = read(CASES / name, types={"previous_calls": "integer", "avg_handle_time": "number"})
        found = {row.contact_id: row.features.get("avg_handle_time") for row in rows if isinstance(row, ContactEvent)}
        assert found == contacts
        assert not any(isinstance(row, BadRow) for row in rows)

    def test_carriage_returns_alone(self, csv: Reading, jsonl: Reading) -> None:
        rows = csv.good('contact_id,job\ra,"two\nlines"\r\rb,"x, ""y"""\rc,')
        assert [(row.contact_id, row.features["job"]) for row in rows] == [
            ("a", "two\nlines"),
            ("b", 'x, "y"'),
            ("c", None),
        ]
        assert [row.contact_id for row in csv.good("contact_id\ra\r".encode("utf-16"))] == ["a"]
        long = "contact_id\r" + "a\r" * 100_000
        assert len(csv.good(long)) == 100_000
        line = '{"contactId": "a", "features": {}}\r'
        assert [row.contact_id for row in jsonl.good(line * 2)] == ["a", "a"]

    @pytest.mark.parametrize("header", ['contact_id,"job\rtitle"\n', '"job\rtitle",contact_id\r\n'])
    def test_a_carriage_return_inside_of_a_quoted_name_ends_no_line(self, csv: Reading, header: str) -> None:
        with pytest.raises(InputError, match=r":1: column 'job\\rtitle' is no feature"):
            csv(header + "a,b\n")

    def test_a_line_end_inside_of_a_cell_without_quotes_costs_its_row(self, csv: Reading) -> None:
        bad = csv.bad("contact_id,job\na,x\ry\nb,j\n")
        assert bad == BadRow(
            2,
            "has a line end outside of quotation marks: put the cell into quotation marks,"
            " and write each of its own twice",
        )

    def test_a_quotation_mark_inside_of_a_cell(self, csv: Reading) -> None:
        assert csv.bad('contact_id,job\na,"x"y"z"\n').message.startswith(
            "has a quotation mark inside of a cell: put the"
        )

    @pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("first", ["", "sep=SEP\r\n", '"sep=SEP"\n', "\ufeffSEP=SEP\n"])
    def test_separators(self, csv: Reading, separator: str, first: str) -> None:
        text = first + 'ageSEPcontact_idSEPjob\r\n1SEPaSEP"xSEPy"\r\n2SEPbSEPz\r\n'
        rows = csv.good(text.replace("SEP=", "sep=").replace("SEP", separator))
        assert [(row.contact_id, row.features["age"], row.features["job"]) for row in rows] == [
            ("a", 1, f"x{separator}y"),
            ("b", 2, "z"),
        ]

    def test_a_separator_line_counts_as_a_line(self, csv: Reading) -> None:
        assert csv.bad("sep=;\ncontact_id;age\na;1\nb;x\n").line == 4
        assert csv.bad("contact_id;age\na;1;2\n").message.endswith(
            "a cell with a semicolon inside needs quotation marks"
        )

    def test_empty_cells_and_columns_at_the_end(self, csv: Reading) -> None:
        rows = csv("contact_id,age,,\na,1,,\nb,2\nc,3,,, \n,,,\n,4,,\nd,5,,x\n")
        assert [row.line if isinstance(row, BadRow) else row.contact_id for row in rows] == ["a", "b", "c", 6, 7]
        assert csv.good("contact_id,\na,\n,\n")[0].contact_id == "a"

    def test_a_long_cell(self, csv: Reading) -> None:
        [row] = csv.good(f"contact_id,job\na,{'x' * 500_000}\n")
        assert row.features["job"] == "x" * 500_000

    def test_digits_quoted_against_a_spreadsheet(self, csv: Reading) -> None:
        rows = csv.good('contact_id,job,age\n"=""00123""","=""007""",="40"\n="00124",x,1\n')
        assert [(row.contact_id, row.features) for row in rows] == [
            ("00123", {"job": "007", "age": 40}),
            ("00124", {"job": "x", "age": 1}),
        ]

    @pytest.mark.parametrize("written", ["8.25373E+11", "8,25373E+11", "1e+05", "1E+16"])
    @pytest.mark.parametrize("column", ["contact_id", "event_id", "campaign_id"])
    def test_an_id_in_scientific_notation(self, csv: Reading, column: str, written: str) -> None:
        cells = {"contact_id": "c", "event_id": "e", "campaign_id": "k", column: written}
        bad = csv.bad(f"{';'.join(cells)}\n{';'.join(cells.values())}\n")
        assert bad.message == f"{column} was shortened by a spreadsheet: make its column text, and export it again"

    @pytest.mark.parametrize("column", ["contact_id", "campaign_id"])
    def test_an_id_converted_to_a_float_by_pandas(self, csv: Reading, column: str) -> None:
        cells = {"contact_id": "c", "campaign_id": "k", column: "825373492.0"}
        bad = csv.bad(f"{','.join(cells)}\n{','.join(cells.values())}\n")
        assert bad.message.startswith(f"{column} has become a number with a fraction: read its column as text")

    def test_an_id_that_only_looks_like_a_float(self, csv: Reading) -> None:
        rows = csv.good("contact_id,campaign_id,model_version\nv1.0,1.5,1.0\n1.0.0,.0,2.0\n")
        assert [row.contact_id for row in rows] == ["v1.0", "1.0.0"]
        assert [row.model_version for row in rows] == ["1.0", "2.0"]

    def test_a_data_frame(self, csv: Reading, jsonl: Reading) -> None:
        """As `to_csv(index=False)` and `to_json(orient="records", lines=True)` of pandas 2 write it."""
        rows = csv.good(
            "contact_id,occurred_at,age,balance,known\n"
            "a,1796000000000.0,40.0,1e-05,True\nb,2026-11-29 12:00:00.123456+00:00,,,\n"
        )
        assert [row.occurred_at_ms for row in rows] == [1_796_000_000_000, 1_795_953_600_123]
        assert rows[0].features == {"age": 40, "balance": 1e-05, "known": True}
        [first, second] = jsonl.good(
            '{"contact_id":"a\\/b","occurred_at":1796000000000,"age":40.0,"balance":null,"known":true}\n'
            '{"contact_id":"b","occurred_at":1796000000000.0,"age":null,"job":"x","campaign_id":null}\n'
        )
        assert first == ContactEvent(
            first.event_id, "a/b", {"age": 40.0, "balance": None, "known": True}, 1_796_000_000_000, None, None
        )
        assert (second.features, second.occurred_at_ms) == ({"age": None, "job": "x"}, 1_796_000_000_000)

    def test_a_report_of_salesforce(self, csv: Reading) -> None:
        """All cells are quoted, and a few lines of text follow, which are not contacts."""
        rows = csv(
            '"contact_id","occurred_at","age"\r\n"003A","2026-11-29T12:00:00.000+0000","40"\r\n\r\n'
            '"Contacts for scoring"\r\n"Copyright (c) 2000-2026 salesforce.com, inc. All rights reserved."\r\n'
        )
        assert [row.line if isinstance(row, BadRow) else row.contact_id for row in rows] == ["003A", 4, 5]


class TestSources:
    CONTENT = b"contact_id,age\na,1\nb,2\n"

    def ids(self, path: Path, **more: Any) -> list[tuple[str, str]]:
        rows = list(ContactFile(path, TYPES, now_ms=NOW_MS, **more))
        return [(row.contact_id, row.event_id) for row in rows if isinstance(row, ContactEvent)]

    @pytest.fixture
    def plain(self, tmp_path: Path) -> Path:
        path = tmp_path / "plain.csv"
        path.write_bytes(self.CONTENT)
        return path

    @pytest.mark.parametrize("name", ["a.csv.gz", "a.csv"])
    def test_gzip_is_detected_under_any_name_and_gives_the_same_ids(
        self, plain: Path, tmp_path: Path, name: str
    ) -> None:
        path = tmp_path / name
        path.write_bytes(gzip.compress(self.CONTENT[:12]) + gzip.compress(self.CONTENT[12:]))
        assert self.ids(path) == self.ids(plain)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_gzip_of_any_encoding(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "a.csv.gz"
        path.write_bytes(gzip.compress(self.CONTENT.decode().encode(encoding)))
        assert [one for one, _ in self.ids(path)] == ["a", "b"]

    def test_gzip_in_gzip_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "contacts.csv.gz"
        path.write_bytes(gzip.compress(gzip.compress(self.CONTENT)))
        with pytest.raises(InputError, match=r"contacts\.csv\.gz: is packed by gzip twice: unpack it once$"):
            self.ids(path)

    def test_a_header_of_many_columns_is_read_in_linear_time(self, tmp_path: Path) -> None:
        path = tmp_path / "wide.csv"
        path.write_text(",".join(f"column_{number}" for number in range(80_000)))
        started = time.perf_counter()
        with pytest.raises(InputError, match="the header has no column contact_id"):
            self.ids(path)
        assert time.perf_counter() - started < 10.0

    def test_a_device_that_never_ends_is_named(self) -> None:
        with pytest.raises(InputError, match=r"/dev/zero: is a device: name a file, or a pipe that ends"):
            self.ids(Path("/dev/zero"), file_format=FileFormat.CSV)

    def test_a_pipe_is_read_whole_and_gives_the_same_ids(self, plain: Path, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe.csv"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(self.CONTENT,))
        writer.start()
        assert self.ids(pipe) == self.ids(plain)
        writer.join()

    @pytest.mark.parametrize("packed", [False, True])
    def test_standard_input(self, plain: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
        content = gzip.compress(self.CONTENT) if packed else self.CONTENT
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert self.ids(Path("-")) == self.ids(plain)

    @pytest.mark.parametrize("full_at", ["open", "write"])
    def test_no_disk_space_for_the_copy_is_not_an_input_error(
        self, monkeypatch: pytest.MonkeyPatch, full_at: str
    ) -> None:
        class Full(io.BytesIO):
            def write(self, _: Any) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def temporary_file() -> Full:
            if full_at == "open":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return Full()

        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(self.CONTENT)))
        monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
        with pytest.raises(InputError, match=r"^standard input: .*temporary files: No space left.*; set TMPDIR"):
            self.ids(Path("-"))

    def test_default_event_ids_from_a_line_on(self, plain: Path) -> None:
        contacts = ContactFile(plain, TYPES, now_ms=NOW_MS)
        every = list(contacts.default_event_ids())
        assert list(contacts.default_event_ids(3)) == every[2:]

    def test_closed_standard_input_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(InputError, match=r"^standard input is closed: name a file"):
            self.ids(Path("-"))

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
    def test_the_format_of_standard_input_is_detected(self, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
        text = ' \n{"contactId": "a", "features": {}}\n'
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode(encoding))))
        assert [one for one, _ in self.ids(Path("-"))] == ["a"]

    def test_errors_of_standard_input_have_line_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"id\n")))
        with pytest.raises(InputError, match=r"^standard input:1: the header has no column contact_id"):
            self.ids(Path("-"), file_format=FileFormat.CSV)

    def test_progress_of_a_packed_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv.gz"
        path.write_bytes(gzip.compress(b"contact_id\n" + b"".join(b"%x\n" % (n * n) for n in range(100_000))))
        file = ContactFile(path, TYPES, now_ms=0)
        seen = [file.bytes_read for _ in file]
        assert seen == sorted(seen)
        assert file.bytes_read == file.size_bytes == path.stat().st_size


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


class TestEncodings:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_csv(self, csv: Reading, encoding: str) -> None:
        """Excel's "Unicode text", PowerShell's `>` and `Export-Csv`, and what other languages write for "UTF-16"."""
        text = 'contact_id,job\r\nc-1,"retraité\r\n"\r\nc-2,\U0001f600\r\n'
        rows = csv.good(text.encode(encoding))
        assert [(row.contact_id, row.features["job"]) for row in rows] == [
            ("c-1", "retraité\r\n"),
            ("c-2", "\U0001f600"),
        ]

    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_json_lines(self, jsonl: Reading, encoding: str) -> None:
        text = "".join(f'{{"contactId": "c-é-{n}", "features": {{"age": {n}}}}}\n' for n in range(3_000))
        rows = jsonl.good(text.encode(encoding))
        assert [(row.contact_id, row.features["age"]) for row in rows] == [(f"c-é-{n}", n) for n in range(3_000)]

    def test_byte_order_marks_inside_of_concatenated_files(self, csv: Reading, jsonl: Reading) -> None:
        """Found here: `cat a.csv b.csv` leaves an invisible byte order mark before a contact id."""
        assert [row.contact_id for row in csv.good("\ufeff\ufeffcontact_id\na\n\ufeffb\n")] == ["a", "b"]
        line = '\ufeff{"contactId": "a", "features": {}}\n'
        assert [row.contact_id for row in jsonl.good(line * 2)] == ["a", "a"]

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
    def test_invalid_text_affects_only_its_row(self, csv: Reading, encoding: str) -> None:
        half = "contact_id\na\n\ud800b\nc\n".encode(encoding, "surrogatepass")
        assert [row.line if isinstance(row, BadRow) else row.contact_id for row in csv(half)] == ["a", 3, "c"]
        cut = "contact_id\na\nb".encode(encoding)[:-1]
        assert [row.line if isinstance(row, BadRow) else row.contact_id for row in csv(cut)] == ["a", 3]

    def test_the_limit_of_a_row_holds(self, csv: Reading) -> None:
        rows = csv(("contact_id,job\na," + "x" * (3 * MAX_ROW_BYTES) + "\nb,j\n").encode("utf-16"))
        assert rows[0] == BadRow(2, "is longer than 1048576 bytes")
        assert [row.contact_id for row in rows if isinstance(row, ContactEvent)] == ["b"]

    def test_progress(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(("contact_id\n" + "a\n" * 100_000).encode("utf-16"))
        file = ContactFile(path, TYPES, now_ms=0)
        seen = [file.bytes_read for _ in file]
        assert seen == sorted(seen)
        assert len(set(seen)) > 3
        assert file.bytes_read == file.size_bytes


class TestDefaults:
    def test_event_ids_are_uuid5_of_content_and_line(self, tmp_path: Path) -> None:
        first, copy, other = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.csv"
        first.write_text("contact_id\na\nb\n")
        copy.write_text("contact_id\na\nb\n")
        other.write_text("contact_id\na\nc\n")
        ids = {
            path: [row.event_id for row in read(path) if isinstance(row, ContactEvent)] for path in (first, copy, other)
        }
        assert ids[first] == ids[copy]
        assert len({*ids[first], *ids[other]}) == 4
        assert {uuid.UUID(event_id).version for event_id in ids[first]} == {5}

    def test_event_ids_stay_the_same_in_every_version(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("contact_id\na\n")
        [row] = read(path)
        assert isinstance(row, ContactEvent)
        assert row.event_id == "ad6481b1-0f2d-50b9-8172-1c77ca0f54a1"


class TestFormat:
    @pytest.mark.parametrize(
        ("name", "file_format"),
        [
            ("a.csv", "csv"),
            ("A.CSV", "csv"),
            ("a.tsv", "csv"),
            ("a.jsonl", "jsonl"),
            ("a.b.ndjson", "jsonl"),
            ("a.CSV.GZ", "csv"),
            ("a.jsonl.gz", "jsonl"),
        ],
    )
    def test_by_name(self, name: str, file_format: str) -> None:
        assert format_of(Path(name)) == file_format

    @pytest.mark.parametrize("name", ["a.json", "a", "csv", "a.gz", "a.csv.zip", "a.json.gz"])
    def test_unknown_names_point_to_the_option(self, name: str) -> None:
        with pytest.raises(UsageError, match="--format csv or --format jsonl"):
            format_of(Path(name))

    def test_a_workbook_is_an_error_in_any_format(self, tmp_path: Path) -> None:
        path = tmp_path / "contacts.xlsx"
        path.write_bytes(b"PK\x03\x04...")
        with pytest.raises(InputError, match="is an Excel workbook or a zip archive: save it as CSV UTF-8"):
            read(path)

    def test_given(self, tmp_path: Path) -> None:
        path = tmp_path / "contacts.txt"
        path.write_text("contact_id\na\n")
        assert len(read(path, FileFormat.CSV)) == 1

    @pytest.mark.parametrize("name", ["missing.csv", "folder.csv"])
    def test_unreadable(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "folder.csv").mkdir()
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "Errno" not in str(caught.value)

    @pytest.mark.parametrize("name", ["a\nb.csv", "\x1b[2J.csv", "\udcff.csv", "a\rb.txt", "\u2028.csv"])
    def test_a_name_that_is_not_printable_is_one_line(self, tmp_path: Path, name: str) -> None:
        with pytest.raises((InputError, UsageError)) as caught:
            read(tmp_path / name)
        assert str(caught.value).isprintable()


def test_progress_reaches_the_size(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("contact_id\n" + "a\n" * 100)
    file = ContactFile(path, TYPES, now_ms=0)
    seen = [file.bytes_read for _ in file]
    assert seen == sorted(seen)
    assert file.bytes_read == file.size_bytes == path.stat().st_size
    assert file.line == 101


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    body=st.one_of(st.binary(max_size=80), st.text('ab",\r\n\\{}[]:0é', max_size=80).map(str.encode)),
    file_format=st.sampled_from(FileFormat),
)
def test_any_bytes_are_rows_bad_rows_or_an_input_error(tmp_path: Path, body: bytes, file_format: FileFormat) -> None:
    path = tmp_path / "fuzz"
    path.write_bytes(b"contact_id,age\n" + body if file_format is FileFormat.CSV else body)
    try:
        rows = read(path, file_format)
    except InputError:
        # Zero bytes at the beginning are those of UTF-32, which not all bytes are.
        assert b"\0\0" in body[:4]
        return
    for row in rows:
        assert (row.message if isinstance(row, BadRow) else row.contact_id) != ""
