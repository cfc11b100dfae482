"""``stream-scorer read`` on a real broker: every topic, both framings, selection, formats, and wrong input."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import stat
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from desk_topics import (
    SCHEMAS,
    START,
    START_MS,
    DeskTopics,
    audit,
    callback,
    decision,
    entry,
    features,
    receipt,
    rows_of,
    score,
)
from scoring_harness import wait_until

from stream_scorer.cli import main
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.avro.confluent import ConfluentCodec
from stream_scorer.desk.record_decoder import TOPIC_KEYS
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_fixture import Broker
    from registry_fixture import Registry

pytestmark = pytest.mark.kafka

SOURCE = b"features-x/0/17"
HEADERS = [("stream-scorer-source", SOURCE), ("stream-scorer-batch", b"batch-1"), ("traceparent", b"00-1")]


@pytest.fixture(scope="module")
def desk(broker: Broker) -> DeskTopics:
    """A record of ``anna`` and one of ``bert`` on every topic, and one that cannot be decoded."""
    made = DeskTopics(broker.bootstrap_servers)
    fill(made)
    return made


def fill(desk: DeskTopics) -> None:
    for number, name in enumerate(("anna", "bert")):
        common: dict[str, Any] = {"key": name.encode(), "partition": number, "at_ms": START_MS + number * 60_000}
        for kind in ("features", "rejected"):
            desk.put(kind, features(name), headers=HEADERS, **common)
        for level in (1, 2):
            desk.put("features_retry", features(name), headers=HEADERS, level=level, **common)
        desk.put("scores", score(name), headers=HEADERS, **common)
        desk.put("review", score(name, review_reasons=["wide_interval"]), headers=HEADERS, **common)
        desk.put("callbacks_retry", callback([name], ["s/0/1"]), level=number + 1, **common)
        desk.put("receipts", receipt([name], ["s/0/1"]), **common)
    desk.put("audit", audit([entry("anna", "f/0/1"), entry("bert", "f/0/2"), entry("anna", "f/0/3", "REJECTED")]))
    desk.put("decisions", decision("rejected-x/0/4", result_place="features-x/0/99"), key=b"rejected-x/0/4")
    desk.put("callbacks", callback(["anna", "bert"], ["s/0/1", "s/0/2"]), key=b"callback-1")
    desk.put("callbacks_rejected", callback(["anna", "bert"], ["s/0/1", "s/0/2"]), key=b"callback-1")
    desk.put("callbacks_rejected", desk.codecs["scores"].encode(score("anna", score=float("nan"))), key=b"anna")
    for kind in ("features", "scores", "audit", "callbacks_rejected"):
        desk.put(kind, b"\x00\x00\x00\x01", key=b"\xff\xfe", headers=[("odd", b"\xff"), ("odd", None)])


@pytest.fixture
def read(
    desk: DeskTopics, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[dict[str, Any]], str]]:
    """Run the command: exit code, rows of JSON Lines, standard error."""
    set_environment(desk, monkeypatch)

    def run(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        code = main(["read", *arguments])
        shown = capsys.readouterr()
        return code, rows_of(shown.out), shown.err

    return run


def set_environment(desk: DeskTopics, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("STREAM_SCORER_"):
            monkeypatch.delenv(name)
    for name, value in desk.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("key", TOPIC_KEYS)
def test_every_topic(read: Any, desk: DeskTopics, key: str) -> None:
    code, rows, errors = read(key.replace("_", "-"))
    assert (code, errors) == (0, "")
    assert {row["schema"] for row in rows} >= {Codec.single_object(load_schema(SCHEMAS[key])).name}
    for row in rows:
        assert list(row) == ["place", "timestamp", "key", "headers", "schema", "value", "error"]
        assert row["place"].startswith(desk.topics[key])
        assert (row["value"] is None) is (row["schema"] is None) is (row["error"] is not None)
    if key == "features_retry":
        assert [row["place"].split("/")[0][-2:] for row in rows] == ["-1", "-1", "-2", "-2"]


def test_a_row_has_the_whole_record(read: Any, desk: DeskTopics) -> None:
    _, [row], _ = read("features", "anna")
    assert row == {
        "place": f"{desk.topics['features']}/0/0",
        "timestamp": START,
        "key": "anna",
        "headers": {
            "stream-scorer-source": "features-x/0/17",
            "stream-scorer-batch": "batch-1",
            "traceparent": "00-1",
        },
        "schema": "ContactFeatures",
        "value": {**features("anna"), "occurred_at": START},
        "error": None,
    }
    _, [row], _ = read("callbacks", "anna")
    assert row["value"]["body"] == '{"type":"scores"}'
    assert row["value"]["planned_at"] == "2023-11-14T22:13:21.000Z"


def test_an_undecodable_record_is_a_row_with_its_error(read: Any) -> None:
    code, rows, _ = read("features")
    [row] = [row for row in rows if row["error"]]
    assert code == 0
    assert row["error"] == "the value has only 4 bytes, too few for the header of an Avro value"
    assert (row["key"], row["headers"], row["value"]) == ("\\xff\\xfe", {"odd": ["\\xff", None]}, None)
    assert "raw_value" not in row


def test_raw_bytes_on_request(read: Any, desk: DeskTopics) -> None:
    _, rows, _ = read("features", "--raw")
    raw = {row["raw_key"]: base64.b64decode(row["raw_value"]) for row in rows}
    assert raw[base64.b64encode(b"\xff\xfe").decode()] == b"\x00\x00\x00\x01"
    assert raw[base64.b64encode(b"anna").decode()] == desk.codecs["features"].encode(features("anna"))


def test_a_truncated_record_names_its_remedy(broker: Broker, monkeypatch: Any, capsys: Any) -> None:
    desk = DeskTopics(broker.bootstrap_servers)
    set_environment(desk, monkeypatch)
    desk.put("rejected", None, headers=[("stream-scorer-source", b"f/0/1"), ("stream-scorer-error-truncated", b"true")])
    desk.put("rejected", None)
    assert main(["read", "rejected"]) == 0
    errors = [row["error"] for row in rows_of(capsys.readouterr().out)]
    assert errors == ["the value was too large for this topic: read the record at its source", "the value is null"]


def test_a_score_on_the_rejected_topic_of_callbacks(read: Any) -> None:
    _, rows, _ = read("callbacks-rejected")
    assert [row["schema"] for row in rows] == ["CampaignCallback", "ContactScore", None]
    assert rows[1]["value"]["score"] == "NaN"


def test_several_settings_that_name_one_topic(broker: Broker, monkeypatch: Any, capsys: Any) -> None:
    desk = DeskTopics(broker.bootstrap_servers)
    desk.environment["STREAM_SCORER_TOPICS__REJECTED"] = desk.topics["scores"]
    desk.environment["STREAM_SCORER_TOPICS__AUDIT"] = desk.topics["scores"]
    set_environment(desk, monkeypatch)
    for kind, value in (("scores", score("a")), ("rejected", features("a")), ("audit", audit([entry("a", "f/0/1")]))):
        desk.put("scores", desk.codecs[kind].encode(value))
    for key in ("scores", "rejected", "audit"):
        assert main(["read", key]) == 0
        schemas = [row["schema"] for row in rows_of(capsys.readouterr().out)]
        assert schemas == ["ContactScore", "ContactFeatures", "BatchAudit"]


# --- selection


@pytest.mark.parametrize(
    ("arguments", "places"),
    [
        (["features", "anna"], ["0/0"]),
        (["features", "anna", "bert"], ["0/0", "1/0"]),
        (["features", "ann"], []),
        (["features", "--event", "event-bert"], ["1/0"]),
        (["features", "--partition", "1"], ["1/0"]),
        (["features", "--partition", "0", "--limit", "1"], ["0/0"]),
        (["features", "--since", "2023-11-14T22:14:20Z"], ["1/0"]),
        (["features", "--since", "2023-11-14T22:13:20Z", "--until", "2023-11-14T22:14:20Z"], ["0/0", "0/1"]),
        (["features", "--since", "1h"], []),
        (["features", "--since", "1"], ["0/1"]),
        (["scores", "--batch", "batch-1"], ["0/0", "1/0"]),
        (["scores", "--batch", "batch-1", "--event", "event-anna"], ["0/0"]),
        (["scores", "--place", "features-x/0/17"], ["0/0", "1/0"]),
        (["receipts", "--place", "s/0/1", "bert"], ["1/0"]),
        (["callbacks", "bert"], ["0/0"]),
        (["decisions", "--place", "rejected-x/0/4"], ["0/0"]),
        (["decisions", "--place", "features-x/0/99"], ["0/0"]),
        (["decisions", "--place", "features-x/0/9"], []),
        (["callbacks", "callback-1"], []),
        (["callbacks-rejected", "anna"], ["0/0", "0/1"]),
    ],
)
def test_selection(read: Any, arguments: list[str], places: list[str]) -> None:
    code, rows, errors = read(*arguments)
    assert (code, errors) == (0, "")
    assert sorted(row["place"].split("/", 1)[1] for row in rows) == places


def test_a_place_of_the_topic_itself(read: Any, desk: DeskTopics) -> None:
    place = f"{desk.topics['scores']}/1/0"
    _, [row], _ = read("scores", "--place", place)
    assert row["place"] == place


def test_entries_of_an_audit_event(read: Any) -> None:
    _, rows, _ = read("audit", "anna")
    assert [(row["entry"]["source"], row["entry"]["outcome"]) for row in rows] == [
        ("f/0/1", "SCORED"),
        ("f/0/3", "REJECTED"),
    ]
    assert rows[0]["entry"]["features_hash"] == "01ff"
    assert rows[0]["value"]["batch_id"] == "batch-1"
    assert rows[0]["value"]["hash"] == "ab" * 32
    assert "contacts" not in rows[0]["value"]
    _, [row], _ = read("audit", "--place", "f/0/2")
    assert row["entry"]["contact_id"] == "bert"
    _, [row], _ = read("audit", "--batch", "batch-1")
    assert [one["contact_id"] for one in row["value"]["contacts"]] == ["anna", "bert", "anna"]
    # A limit counts records.
    assert len(read("audit", "anna", "--limit", "1")[1]) == 2


ODD = ["=1+1", "-5", "--raw", "a b", "äöü", "a\nb", "\x1b[31mred", "名前", "a/0/1", "x" * 256]


def test_odd_contact_ids(broker: Broker, monkeypatch: Any, capsys: Any) -> None:
    desk = DeskTopics(broker.bootstrap_servers)
    set_environment(desk, monkeypatch)
    for name in ODD:
        desk.put("features", features(name), key=name.encode())
        desk.put("audit", audit([entry("other", "f/0/1"), entry(name, "f/0/2")]))
    for name in ODD:
        for topic in ("features", "audit"):
            assert main(["read", topic, "--", name]) == 0
            [row] = rows_of(capsys.readouterr().out)
            assert (row.get("entry") or row["value"])["contact_id"] == name
    assert main(["read", "features", "-o", "table"]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    assert main(["read", "features", "-o", "csv"]) == 0
    cells = [row["value.contact_id"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))]
    assert cells == [f"'{name}" if name[0] in "=-" else name for name in ODD]


# --- formats


@pytest.mark.usefixtures("read")
def test_table(desk: DeskTopics, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", "scores", "-o", "table", "--partition", "1"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == [
        *("place", "timestamp", "contact_id", "score", "confidence_lower", "confidence_upper", "model_version"),
        *("review_reasons", "campaign_id", "source"),
    ]
    assert line.split()[:3] == [f"{desk.topics['scores']}/1/0", "2023-11-14T22:14:20.000Z", "bert"]
    assert main(["read", "audit", "-o", "table", "anna"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "REJECTED" in lines[1]
    assert main(["read", "features", "-o", "table", "missing"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "no record is selected\n")


@pytest.mark.usefixtures("read")
def test_json_and_csv(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", "features", "-o", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(["read", "features", "-o", "csv", "anna"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    assert row["value.features.age"] == "40"
    assert row["value.attributes.phone"] == "'+49 30 1"
    assert row["headers.stream-scorer-source"] == "features-x/0/17"


def test_parquet_to_a_pipe_and_a_file(desk: DeskTopics, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "scores.parquet"
    assert desk.start("read", "scores", "--out", str(out)).wait(60) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    table = pq.read_table(out)
    assert sorted(table["value.score"].to_pylist(), key=str) == [0.9, 0.9, None]
    data, _ = desk.start("read", "scores", "-o", "parquet").communicate(timeout=60)
    assert pq.read_table(io.BytesIO(data)).equals(table)


# --- both framings


def test_records_of_a_schema_registry(
    broker: Broker, registry: Registry, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    client = SchemaRegistryClient({"url": registry.url, "timeout": 10})
    desk = DeskTopics(broker.bootstrap_servers)
    for kind, schema in SCHEMAS.items():
        given = json.dumps(load_schema(schema))
        number = client.register_schema(f"{desk.topics[kind]}-value", Schema(given, "AVRO"))
        desk.codecs[kind] = ConfluentCodec.confluent(load_schema(schema), no_writer, schema_id=number)
    fill(desk)
    single = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
    desk.put("features", single.encode(features("carl")))
    desk.put("features", b"\0\x0f\x0f\x0f\x0f" + single.encode(features("dora"))[10:])
    set_environment(desk, monkeypatch)
    assert main(["read", "scores"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert all("set schema_registry.url" in row["error"] for row in rows if row["key"] in ("anna", "bert"))
    monkeypatch.setenv("STREAM_SCORER_SCHEMA_REGISTRY__URL", registry.url)
    for key in TOPIC_KEYS:
        contacts = [] if key == "decisions" else ["anna"]
        assert main(["read", key.replace("_", "-"), *contacts]) == 0
        rows = rows_of(capsys.readouterr().out)
        assert rows, key
        assert {row["error"] for row in rows} == {None}
    assert main(["read", "features", "--since", "2"]) == 0
    carl, dora = rows_of(capsys.readouterr().out)
    assert carl["value"]["contact_id"] == "carl"
    assert dora["error"] == f"the schema registry has no schema with id {0x0F0F0F0F}"


def no_writer(schema_id: int) -> Any:
    raise AssertionError(schema_id)


# --- streams


def test_a_closed_pipe_ends_quietly(desk: DeskTopics) -> None:
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" | head -n 1; echo "${PIPESTATUS[0]}"', "-", *program("read", "features")],
        env={**os.environ, **desk.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    first, code = done.stdout.splitlines()
    assert json.loads(first)["schema"] == "ContactFeatures"
    assert code == "0"


def program(*arguments: str) -> list[str]:
    import sys  # noqa: PLC0415

    return [sys.executable, "-m", "stream_scorer", *arguments]


def test_follow_prints_new_records_until_ctrl_c(broker: Broker, tmp_path: Path) -> None:
    desk = DeskTopics(broker.bootstrap_servers)
    desk.put("features_retry", features("anna"), level=1)
    shown = desk.start("read", "features-retry", "--follow")
    file = desk.start("read", "features-retry", "anna", "--follow", "--out", str(tmp_path / "rows"))
    assert shown.stdout is not None
    assert json.loads(shown.stdout.readline())["value"]["contact_id"] == "anna"
    for level, name in ((2, "bert"), (1, "anna")):
        desk.put("features_retry", features(name), level=level)
        assert json.loads(shown.stdout.readline())["value"]["contact_id"] == name

    def rows_written() -> int:
        """Until it is complete, the file has another name."""
        return sum(len(path.read_text().splitlines()) for path in tmp_path.iterdir())

    wait_until(lambda: rows_written() == 2, "both rows in the file")
    for one in (shown, file):
        one.send_signal(signal.SIGINT)
        _, errors = one.communicate(timeout=60)
        assert (one.returncode, errors) == (130, b"")
    assert len(rows_of((tmp_path / "rows").read_text())) == 2


def test_follow_ends_when_the_pipe_is_closed_without_new_records(desk: DeskTopics) -> None:
    shown = desk.start("read", "features", "--follow")
    assert shown.stdout is not None
    assert shown.stdout.readline()
    shown.stdout.close()
    assert shown.wait(60) == 0


def test_follow_ends_at_its_limit(broker: Broker) -> None:
    desk = DeskTopics(broker.bootstrap_servers)
    shown = desk.start("read", "scores", "--follow", "--limit", "2", "-o", "table")
    adding = threading.Thread(target=lambda: [desk.put("scores", score(name)) for name in ("a", "b", "c")])
    adding.start()
    out, errors = shown.communicate(timeout=60)
    adding.join()
    assert (shown.returncode, errors) == (0, b"")
    assert len(out.splitlines()) == 3


# --- wrong input


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["contact-scores"], "unknown topic 'contact-scores': must be one of features, features-retry, scores,"),
        (["sc\nores"], r"unknown topic 'sc\nores'"),
        (["scores", "--since", "yesterday"], "--since 'yesterday'"),
        (["scores", "--partition", "9"], "--partition 9: topic"),
        (["scores", "--place", "nowhere"], "--place 'nowhere'"),
        (["scores", "--event", ""], "--event ''"),
        (["scores", ""], "contact id ''"),
        (["scores", "--limit", "0"], "--limit"),
        (["scores", "-o", "xml"], "xml"),
        (["scores", "-o", "table", "--raw"], "--raw: a table has no room for it"),
        (["scores", "-o", "csv", "--follow"], "--follow"),
        (["scores", "--out", "/missing/file"], "--out '/missing/file': cannot be created"),
        (["scores", "--config", "/missing/file"], "/missing/file"),
        ([], "Missing argument 'TOPIC'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(read: Any, arguments: list[str], line: str) -> None:
    code, rows, errors = read(*arguments)
    assert (code, rows) == (2, [])
    assert len(errors.splitlines()) == 1
    assert line in errors


def test_a_missing_topic_and_a_broker_that_is_away(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SCORER_TOPICS__SCORES", "missing-topic")
    code, _, errors = read("scores")
    assert (code, len(errors.splitlines())) == (1, 1)
    assert "topic missing-topic is missing" in errors
    monkeypatch.setenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    code, _, errors = read("scores")
    assert (code, len(errors.splitlines())) == (1, 1)


def test_no_error_has_record_content(broker: Broker, tmp_path: Path) -> None:
    """Neither with --debug nor where a value breaks its schema in the middle."""
    desk = DeskTopics(broker.bootstrap_servers)
    good = desk.codecs["features"].encode(features("s3cret-anna"))
    for value in (good[:-3], good + b"x", good.replace(b"gold", b"\xff\xfe\xfd\xfc"), b"{s3cret}"):
        desk.put("features", value, key=b"k")
    desk.put("features", good, key=b"k")
    for arguments in (["read", "features"], ["read", "features", "-o", "csv", "--out", str(tmp_path / "no" / "x")]):
        shown = desk.start("--debug", *arguments)
        out, errors = shown.communicate(timeout=60)
        assert b"s3cret" not in errors
        rows = rows_of(out.decode())
        assert sum("s3cret" in (row["error"] or "") for row in rows) == 0
        assert sum(row["error"] is not None for row in rows) == (4 if rows else 0)
