"""Output of rows: table, JSON, JSON Lines, CSV or Parquet, to standard output or to a new file.

A row is a dict, whose values may be dicts and lists. JSON and JSON Lines are exact. A table shows control characters
escaped. CSV and Parquet have flat columns: ``features`` with ``income`` becomes ``features.income``. Their columns are
known only after the last row, so the rows wait in an anonymous temporary file.

A CSV cell of text that a spreadsheet would evaluate (``=``, ``+``, ``-``, ``@``, tab, carriage return) begins with an
apostrophe. Numbers do not.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import os
import re
import sys
import tempfile
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, cast

from rich.cells import cell_len, set_cell_size

from stream_scorer.cli.standard_streams import SafeStream
from stream_scorer.core.text import quoted
from stream_scorer.errors import InputError, UsageError, extra_command, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# A table's widths are those of its first rows. Later rows that are wider are not truncated more than these.
_MEASURED_ROWS: Final = 200
_MAX_CELL: Final = 60
# A hostile record may have a map of 100,000 names.
_MAX_COLUMNS: Final = 1000
_MORE: Final = "more"
_CHUNK_ROWS: Final = 10_000
_MAX_INT64: Final = 2**63
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
# Characters that JSON allows in a string and that act on a terminal: C1 controls, line separators, text direction.
_UNSAFE: Final = re.compile("[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class OutputFormat(StrEnum):
    """Formats of rows."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_STREAMED: Final = frozenset({OutputFormat.TABLE, OutputFormat.JSONL})


class RowWriter(Protocol):
    """Writer of rows in one format."""

    @property
    def is_wanted(self) -> bool:
        """Whether more rows can be written: False once the reader of a pipe has closed it."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row."""

    def flush(self) -> None:
        """Show all rows that were written, as far as the format allows it."""

    def finish(self) -> None:
        """Write the rest; no row follows."""


@contextmanager
def row_output(
    output_format: OutputFormat | None,
    out: Path | None,
    *,
    is_endless: bool = False,
    empty: str = "",
    max_cell: int = _MAX_CELL,
) -> Iterator[RowWriter]:
    """Open the output of a command.

    Args:
        output_format: None: a table on a terminal, JSON Lines elsewhere, or as the name of ``out`` ends.
        out: a file that does not exist yet; it appears when all rows are written. None: standard output.
        is_endless: whether rows are shown while others are awaited; only table and JSON Lines can do that.
        empty: shown on standard error instead of a table without rows.
        max_cell: width of a table's cell in terminal cells, at which it is cut.

    Raises:
        UsageError: the file exists, the format needs a package or a file, or cannot show rows without an end.
        InputError: the file cannot be written.
    """
    chosen = chosen_format(output_format, out)
    if is_endless and chosen not in _STREAMED:
        raise UsageError(f"-o {chosen} has an end, so --follow cannot write it: use -o jsonl or -o table")
    if chosen is OutputFormat.PARQUET:
        _check_parquet(out)
    if out is None:
        writer = _writer(chosen, sys.stdout, empty, max_cell)
        yield writer
        writer.finish()
        writer.flush()
        return
    with new_file(out) as file:
        writer = _writer(chosen, file, empty, max_cell)
        yield writer
        writer.finish()
        writer.flush()


def chosen_format(output_format: OutputFormat | None, out: Path | None) -> OutputFormat:
    """Return the format of a command's output; see `row_output`."""
    if output_format is not None:
        return output_format
    if out is None:
        return OutputFormat.TABLE if sys.stdout.isatty() else OutputFormat.JSONL
    ending = out.suffix.removeprefix(".").lower()
    return OutputFormat(ending) if ending in set(OutputFormat) else OutputFormat.JSONL


def _writer(chosen: OutputFormat, stream: IO[str], empty: str, max_cell: int) -> RowWriter:
    match chosen:
        case OutputFormat.TABLE:
            return _TableWriter(stream, empty, max_cell)
        case OutputFormat.JSON:
            return _JsonWriter(stream)
        case OutputFormat.JSONL:
            return _JsonLinesWriter(stream)
        case OutputFormat.CSV:
            return _CsvWriter(stream)
        case OutputFormat.PARQUET:
            return _ParquetWriter(stream)


# --- files


@contextmanager
def new_file(path: Path) -> Iterator[IO[str]]:
    """Open a file that gets its name when it is complete; its mode is 0600, since rows are personal data."""
    name = quoted(str(path))
    if os.path.lexists(path):
        raise UsageError(f"--out {name}: exists already; it is not overwritten")
    try:
        number, hidden = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no valid name"
        raise UsageError(f"--out {name}: cannot be created ({reason})") from None
    try:
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(hidden, path)
    except FileExistsError:
        raise UsageError(f"--out {name}: exists already; it is not overwritten") from None
    except OSError as error:
        raise InputError(f"--out {name}: cannot be written ({error.strerror})") from None
    finally:
        Path(hidden).unlink(missing_ok=True)


def _rename(hidden: str, path: Path) -> None:
    """Give a file its name. A link never overwrites; file systems without links need a check before."""
    try:
        os.link(hidden, path)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError from None
        Path(hidden).rename(path)


# --- values


def to_json(value: Any) -> str:
    """Return a value as JSON in one line. A number that is not finite is text; bytes are base64."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), default=_encoded)
    return text if text.isprintable() else _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _encoded(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    raise TypeError(type(value).__name__)


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {name: _finite(one) for name, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
        case _:
            return value


def _is_wanted(stream: IO[str]) -> bool:
    safe = cast("Any", stream)
    return not (isinstance(safe, SafeStream) and safe.is_reader_gone)


# --- JSON


class _JsonLinesWriter:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    @property
    def is_wanted(self) -> bool:
        return _is_wanted(self._stream)

    def write(self, row: Mapping[str, Any]) -> None:
        self._stream.write(to_json(row) + "\n")

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None: ...


class _JsonWriter(_JsonLinesWriter):
    """An array with a row a line."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self._before = "[\n"

    def write(self, row: Mapping[str, Any]) -> None:
        self._stream.write(self._before + to_json(row))
        self._before = ",\n"

    def finish(self) -> None:
        self._stream.write("[]\n" if self._before == "[\n" else "\n]\n")


# --- table


class _TableWriter:
    """Aligned columns, separated by two blanks. The columns are those of the first rows."""

    def __init__(self, stream: IO[str], empty: str, max_cell: int) -> None:
        self._stream = stream
        self._empty = empty
        self._max_cell = max_cell
        self._waiting: list[dict[str, Any]] = []
        self._widths: dict[str, int] = {}

    @property
    def is_wanted(self) -> bool:
        return _is_wanted(self._stream)

    def write(self, row: Mapping[str, Any]) -> None:
        self._waiting.append(dict(row))
        if self._widths or len(self._waiting) >= _MEASURED_ROWS:
            self._print()

    def flush(self) -> None:
        self._print()
        self._stream.flush()

    def finish(self) -> None:
        self._print()
        if not self._widths and self._empty:
            sys.stderr.write(self._empty + "\n")

    def _print(self) -> None:
        if not self._waiting:
            return
        rows = [{name: _cell(value, self._max_cell) for name, value in row.items()} for row in self._waiting]
        if not self._widths:
            names = list(dict.fromkeys(name for row in self._waiting for name in row))
            self._widths = {
                name: max(cell_len(_cell(name, self._max_cell)), *(cell_len(row.get(name, "")) for row in rows))
                for name in names
            }
            self._print_line({name: _cell(name, self._max_cell) for name in names}, {})
        for row, values in zip(rows, self._waiting, strict=True):
            self._print_line(row, values)
        self._waiting.clear()

    def _print_line(self, cells: Mapping[str, str], values: Mapping[str, Any]) -> None:
        # A name that the first rows do not have follows at the end of its line.
        others = [f"{_cell(name, self._max_cell)}={cell}" for name, cell in cells.items() if name not in self._widths]
        columns = [_aligned(cells.get(name, ""), width, values.get(name)) for name, width in self._widths.items()]
        self._stream.write("  ".join([*columns, *others]).rstrip() + "\n")


def _cell(value: Any, max_cells: int) -> str:
    """Return the text of a cell: one line without control characters, cut at a width."""
    text = printable(value if isinstance(value, str) else _text(value))
    return text if cell_len(text) <= max_cells else set_cell_size(text, max_cells - 1) + "…"


def _aligned(cell: str, width: int, value: Any) -> str:
    blanks = " " * (width - cell_len(cell))
    return blanks + cell if isinstance(value, int | float) and not isinstance(value, bool) else cell + blanks


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case _:
            return to_json(value)


# --- flat columns


class _Spool:
    """Rows with flat columns, in an anonymous file of this user, until all columns are known."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogatepass")  # noqa: SIM115 - see `rows`
        self._groups: dict[str, dict[str, None]] = {}
        self._count = 0
        self.kinds: dict[str, set[type]] = {}

    @property
    def columns(self) -> list[str]:
        """Names of the columns; those of one map are adjacent.

        A map that is null in some rows, and in others has values, has no column of its own.
        """
        names = [name for group in self._groups.values() for name in group]
        parents = {name[:at] for name in names for at, sign in enumerate(name) if sign == "."}
        return [name for name in names if name in self.kinds or name not in parents]

    def write(self, row: Mapping[str, Any]) -> None:
        flat: dict[str, Any] = {}
        more: dict[str, Any] = {}
        for top, value in row.items():
            group = self._groups.setdefault(top, {})
            for name, one in _flat(top, value):
                if name not in group and self._count >= _MAX_COLUMNS:
                    more[name] = one
                    continue
                flat[name] = one
                if name not in group:
                    group[name] = None
                    self._count += 1
                if one is not None:
                    self.kinds.setdefault(name, set()).add(_kind(one))
        if more:
            self._groups.setdefault(_MORE, {})[_MORE] = None
            flat[_MORE] = to_json(more)
            self.kinds[_MORE] = {str}
        self._file.write(json.dumps(flat, separators=(",", ":")) + "\n")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, and remove the file."""
        with self._file as file:
            file.seek(0)
            for line in file:
                row: dict[str, Any] = json.loads(line)
                yield row


def _kind(value: Any) -> type:
    return str if isinstance(value, int) and not -_MAX_INT64 <= value < _MAX_INT64 else type(value)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for inner, one in value.items():
            yield from _flat(f"{name}.{inner}", one)
    elif value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        yield name, value
    elif isinstance(value, float):
        yield name, str(_finite(value))
    elif not isinstance(value, dict):
        yield name, _encoded(value) if isinstance(value, bytes) else to_json(value)


class _SpooledWriter:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._spool = _Spool()

    @property
    def is_wanted(self) -> bool:
        return _is_wanted(self._stream)

    def write(self, row: Mapping[str, Any]) -> None:
        self._spool.write(row)

    def flush(self) -> None:
        self._stream.flush()


class _CsvWriter(_SpooledWriter):
    def finish(self) -> None:
        columns = self._spool.columns
        if not columns:
            return
        # RFC 4180; the module quotes a carriage return in a cell only if lines end with one.
        writer = csv.writer(self._stream, lineterminator="\r\n")
        writer.writerow([_csv_cell(name) for name in columns])
        for row in self._spool.rows():
            writer.writerow([_csv_cell(row.get(name)) for name in columns])


def _csv_cell(value: Any) -> str:
    if not isinstance(value, str):
        return _text(value)
    return f"'{value}" if value.startswith(_FORMULA) else value


class _ParquetWriter(_SpooledWriter):
    def finish(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415

        types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
        kinds = {name: _one_kind(self._spool.kinds.get(name, set())) for name in self._spool.columns}
        schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
        # In a file first: the format needs to know its place, which a pipe does not have.
        with tempfile.TemporaryFile() as file:
            with pq.ParquetWriter(file, schema) as writer:
                for rows in _chunks(self._spool.rows()):
                    columns = [[_cast(row.get(name), kind) for row in rows] for name, kind in kinds.items()]
                    arrays = [pa.array(one, types[kind]) for one, kind in zip(columns, kinds.values(), strict=True)]
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            file.seek(0)
            target = self._stream.buffer  # type: ignore[attr-defined]
            with suppress(BrokenPipeError):
                while part := file.read(1 << 20):
                    target.write(part)


def _one_kind(kinds: set[type]) -> type:
    """Return the type of a column whose values have these types."""
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 else str


def _cast(value: Any, kind: type) -> Any:
    if value is None or isinstance(value, kind):
        return value
    return float(value) if kind is float else _text(value)


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _check_parquet(out: Path | None) -> None:
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise UsageError(f"-o parquet needs the package pyarrow: {extra_command('parquet')}") from None
    if out is None and sys.stdout.isatty():
        raise UsageError("-o parquet is binary: add --out FILE, or write it to a pipe")
