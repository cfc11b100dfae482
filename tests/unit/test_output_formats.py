from __future__ import annotations

import csv
import io
import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.cli.output_formats import OutputFormat, row_output, to_json
from stream_scorer.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

ROWS: list[dict[str, Any]] = [
    {"place": "t/0/1", "contact_id": "anna", "features": {"age": 40, "city": "Köln"}, "score": 0.5, "reasons": []},
    {"place": "t/0/2", "contact_id": "=1+1", "features": {"vip": True}, "score": None, "reasons": ["a", "b"]},
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(rows: Iterable[Mapping[str, Any]], chosen: OutputFormat | None, out: Path | None = None) -> None:
    with row_output(chosen, out) as output:
        for row in rows:
            output.write(row)


def shown(rows: Iterable[Mapping[str, Any]], chosen: OutputFormat, capsys: pytest.CaptureFixture[str]) -> str:
    written(rows, chosen)
    return capsys.readouterr().out


def test_json_lines_are_exact(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(ROWS, OutputFormat.JSONL, capsys).splitlines()
    assert [json.loads(line) for line in lines] == ROWS


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS])
def test_json_is_one_array(rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(shown(rows, OutputFormat.JSON, capsys)) == rows


def test_json_of_any_value_is_valid_and_has_one_line() -> None:
    text = to_json({"a": float("nan"), "b": [float("-inf")], "c": b"\x00\xff", "d": "\x9b31m\u2028\x7f\n\x1b"})
    assert text.isprintable()
    assert json.loads(text) == {"a": "NaN", "b": ["-Infinity"], "c": "AP8=", "d": "\x9b31m\u2028\x7f\n\x1b"}


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "名前", "n": 5, "e": None}, {"name": "b", "n": 1000, "e": True}]
    assert shown(rows, OutputFormat.TABLE, capsys) == "name  n     e\n名前     5\nb     1000  true\n"


def test_a_table_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id\x1b[1m": "a\nb\x1b]0;t\x07\x9b31m", "map": {"x": "\u202e"}}]
    text = shown(rows, OutputFormat.TABLE, capsys)
    assert len(text.splitlines()) == 2
    assert all(line.isprintable() for line in text.splitlines())
    assert r"a\nb\x1b]0;t\x07\x9b31m" in text


def test_a_long_cell_of_a_table_is_truncated_and_late_names_are_appended(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"a": "x" * 500}, *[{"a": "y"}] * 300, {"a": "z", "late": 1}]
    lines = shown(rows, OutputFormat.TABLE, capsys).splitlines()
    assert lines[1] == "x" * 59 + "…"
    assert lines[-1].split() == ["z", "late=1"]


def test_an_empty_table_is_a_message_and_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    with row_output(OutputFormat.TABLE, None, empty="no record is selected"):
        pass
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "no record is selected\n")


def test_csv_has_flat_columns_of_all_rows(capsys: pytest.CaptureFixture[str]) -> None:
    read = list(csv.reader(io.StringIO(shown(ROWS, OutputFormat.CSV, capsys), newline="")))
    assert read == [
        ["place", "contact_id", "features.age", "features.city", "features.vip", "score", "reasons"],
        ["t/0/1", "anna", "40", "Köln", "", "0.5", "[]"],
        ["t/0/2", "'=1+1", "", "", "true", "", '["a","b"]'],
    ]


@pytest.mark.parametrize("text", ["=1", "+49 30", "-1", "@x", "\tx", "\rx"])
def test_csv_text_is_never_a_formula(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{text: text, "n": -5, "f": -0.5, "inner": {text: 'a,b\n"c"'}}]
    read = list(csv.reader(io.StringIO(shown(rows, OutputFormat.CSV, capsys), newline="")))
    assert read == [[f"'{text}", "n", "f", f"inner.{text}"], [f"'{text}", "-5", "-0.5", 'a,b\n"c"']]


def test_csv_without_rows_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown([], OutputFormat.CSV, capsys) == ""


def test_a_map_that_is_empty_or_null_in_some_rows_has_no_column_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"value": None, "error": None, "empty": {}}, {"value": {"a.b": 1, "c": {"d": 2}}}, {"value": {"c": None}}]
    read = list(csv.reader(io.StringIO(shown(rows, OutputFormat.CSV, capsys), newline="")))
    assert read == [["value.a.b", "value.c.d", "error"], ["", "", ""], ["1", "2", ""], ["", "", ""]]


def test_more_names_than_columns_are_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "a", "features": {f"f{n}": n for n in range(1500)}}, {"id": "b", "last": 1}]
    text = shown(rows, OutputFormat.CSV, capsys)
    csv.field_size_limit(10_000_000)
    [first, second] = csv.DictReader(io.StringIO(text, newline=""))
    assert len(first) == 1001
    assert len(json.loads(first["more"])) == 501
    assert json.loads(second["more"]) == {"last": 1}


def test_parquet_has_typed_columns(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [*ROWS, {"place": "t/0/3", "n": 2**63, "m": 1, "k": 5}, {"n": 1, "m": 0.5, "k": "x"}]
    written(rows, OutputFormat.PARQUET, tmp_path / "rows")
    table = pq.read_table(tmp_path / "rows")
    types = {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)}
    assert types["features.age"] == "int64"
    assert types["features.vip"] == "bool"
    assert types["score"] == types["m"] == "double"
    assert types["n"] == types["k"] == types["contact_id"] == "string"
    read = table.to_pylist()
    assert [row["contact_id"] for row in read] == ["anna", "=1+1", None, None]
    assert [row["n"] for row in read] == [None, None, str(2**63), "1"]
    assert [row["k"] for row in read] == [None, None, "5", "x"]


def test_parquet_without_rows_is_a_file(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    written([], OutputFormat.PARQUET, tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 0


def test_parquet_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'WHEEL\[parquet\]'"):
        written(ROWS, OutputFormat.PARQUET, tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


def test_parquet_is_not_written_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(UsageError, match="add --out FILE"):
        written(ROWS, OutputFormat.PARQUET)


def test_the_format_is_a_table_on_a_terminal_and_json_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(ROWS[:1], None)
    assert json.loads(capsys.readouterr().out) == ROWS[0]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    written(ROWS[:1], None)
    assert terminal.getvalue().startswith("place  contact_id")


@pytest.mark.parametrize(
    ("name", "begins"), [("rows.csv", "place,"), ("rows.json", "[\n"), ("rows.jsonl", "{"), ("rows", "{")]
)
def test_the_name_of_a_file_gives_its_format(name: str, begins: str, tmp_path: Path) -> None:
    written(ROWS, None, tmp_path / name)
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)


def test_a_file_is_complete_and_private_when_it_appears(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    before = os.umask(0)
    try:
        with row_output(None, out) as output:
            output.write(ROWS[0])
            output.flush()
            assert not out.exists()
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already"):
        written(ROWS, None, out)
    out.unlink()
    with pytest.raises(UsageError, match="exists already"), row_output(None, out) as output:  # noqa: PT012
        output.write(ROWS[0])
        out.write_text("theirs")
    assert out.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["missing/rows", "bad\nname/x", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_created_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, InputError)) as caught:
        written(ROWS, None, tmp_path / name)
    assert "--out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), row_output(None, tmp_path / "rows.csv") as output:  # noqa: PT012
        output.write(ROWS[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("chosen", [OutputFormat.JSON, OutputFormat.CSV, OutputFormat.PARQUET])
def test_a_format_with_a_footer_is_rejected_for_a_stream(chosen: OutputFormat) -> None:
    with pytest.raises(UsageError, match="--follow"), row_output(chosen, None, is_endless=True):
        pass
