"""Files and pipes: a pipe without a writer is an error within the limit, wherever a file is read."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from stream_scorer import file_reader
from stream_scorer.contact_files.reader import ContactFile, FileFormat
from stream_scorer.errors import SettingsError, StreamScorerError
from stream_scorer.file_reader import is_special, read_file
from stream_scorer.http_client.environment import check_authorities, check_key_log
from stream_scorer.kafka.client.property_checks import check_value
from stream_scorer.local.simulator.config import read_features
from stream_scorer.local.simulator.scenario import load_scenario
from stream_scorer.settings.load import load
from stream_scorer.telemetry.otel_components import check_otel_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NO_WRITER = "it is a pipe, and no program has opened it for writing for"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "WRITER_WAIT_S", 0.05)


def write_later(pipe: Path, content: bytes) -> threading.Timer:
    timer = threading.Timer(0.3, pipe.write_bytes, (content,))
    timer.start()
    return timer


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize(
    "read",
    [
        read_file,
        lambda pipe: load(pipe, environ={}),
        lambda pipe: load(None, environ={"GENESYS_CLIENT_SECRET_FILE": str(pipe)}),
        lambda pipe: load(None, environ={"STREAM_SCORER_KAFKA__PROPERTIES_FILE": str(pipe)}),
        lambda pipe: load(None, environ={"STREAM_SCORER_SCHEMA_REGISTRY__PROPERTIES_FILE": str(pipe)}),
        lambda pipe: ContactFile(pipe, {}, now_ms=0, file_format=FileFormat.CSV),
        read_features,
        lambda pipe: load_scenario(str(pipe)),
    ],
    ids=["file", "settings", "secret", "kafka properties", "registry properties", "contacts", "features", "scenario"],
)
def test_a_pipe_without_a_writer_is_one_error_line(pipe: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises((StreamScorerError, OSError), match=NO_WRITER) as caught:
        read(pipe)
    if isinstance(caught.value, StreamScorerError):
        lines = [line for line in str(caught.value).splitlines() if NO_WRITER in line]
        assert len(lines) == 1
        assert str(pipe) in lines[0]


@pytest.mark.usefixtures("short_wait")
def test_a_writer_that_takes_its_time_is_waited_for(pipe: Path) -> None:
    writer = os.open(pipe, os.O_RDWR)  # the writer is there, and writes after the limit
    timer = threading.Timer(0.3, lambda: (os.write(writer, b"one"), os.close(writer)))
    timer.start()
    assert read_file(pipe) == b"one"
    timer.join()


def test_a_writer_that_comes_within_the_limit_is_read(pipe: Path) -> None:
    writer = write_later(pipe, b"x" * 300_000)
    assert read_file(pipe) == b"x" * 300_000
    writer.join()


def test_a_writer_that_writes_nothing_is_an_empty_file(pipe: Path) -> None:
    writer = write_later(pipe, b"")
    assert read_file(pipe) == b""
    writer.join()


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 3_000_000)
    assert len(read_file(file)) == 3_000_000
    assert read_file(file, 10) == b"x" * 11
    assert read_file(file, 3_000_000) == file.read_bytes()
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")
    with pytest.raises(ValueError, match="null"):
        read_file("a\0b")


@pytest.mark.parametrize(
    "how", ["{ printf abc; sleep 0.2; printf def; } | {} /dev/stdin", "{} <(sleep 0.2; echo abcdef)"]
)
def test_standard_input_and_process_substitution(how: str) -> None:
    code = "import sys; from stream_scorer.file_reader import read_file; print(read_file(sys.argv[1]).decode())"
    command = how.replace("{}", f'"{sys.executable}" -c "{code}"')
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["abcdef"]


def check_otel(path: str) -> None:
    check_otel_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:4318", "OTEL_EXPORTER_OTLP_CERTIFICATE": path})


@pytest.mark.parametrize("kind", ["pipe", "/dev/null", "/dev/zero"])
@pytest.mark.parametrize(
    ("check", "name"),
    [
        (lambda path: check_authorities("SSL_CERT_FILE", path), "SSL_CERT_FILE"),
        (lambda path: check_value("ssl.ca.location", path), "ssl.ca.location"),
        (lambda path: check_value("sasl.oauthbearer.assertion.file", path), "sasl.oauthbearer.assertion.file"),
        (lambda path: check_value("sasl.kerberos.keytab", path), "sasl.kerberos.keytab"),
        (check_otel, "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ],
)
def test_a_file_that_is_opened_again_is_no_pipe(pipe: Path, kind: str, check: Callable[[str], None], name: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name} .*a pipe or a device: name a file"):
        check(str(pipe) if kind == "pipe" else kind)


def test_a_key_log_without_a_reader(pipe: Path) -> None:
    with pytest.raises(SettingsError, match=r"SSLKEYLOGFILE names .*pipe, which cannot be written"):
        check_key_log({"SSLKEYLOGFILE": str(pipe)})
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_key_log({"SSLKEYLOGFILE": str(pipe)})
    os.close(reader)


def test_a_key_log_is_created(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    check_key_log({"SSLKEYLOGFILE": str(file)})
    assert stat.S_IMODE(file.stat().st_mode) & 0o700 == 0o600
    assert not is_special(file)
    assert not is_special(tmp_path)
    assert not is_special(tmp_path / "none")
    assert not is_special("a\0b")
