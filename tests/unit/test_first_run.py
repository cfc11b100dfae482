"""The packages of `make install`, `make demo` and the other targets: what each installs, and how it fails."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The parts of a clone that make .venv."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "requirements", tmp_path / "requirements")
    return tmp_path


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=clone, capture_output=True, text=True, timeout=60, check=False)


def pins(lock: str) -> dict[str, str]:
    text = (REPOSITORY / "requirements" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.\[\],-]+)==(\S+)", text, re.MULTILINE))


def planned(clone: Path, target: str) -> list[str]:
    """The locks that a target would install, in order."""
    done = make(clone, "--dry-run", target)
    assert done.returncode == 0, done.stderr
    return re.findall(r"\b\w+\.txt", done.stdout)


def test_the_commands_need_no_development_tools_and_the_tests_add_them(clone: Path) -> None:
    for target in ("install", "demo"):
        assert planned(clone, target) == ["local.txt", "build.txt"]
    for target in ("setup", "lint", "test", "chaos"):
        assert planned(clone, target) == ["local.txt", "build.txt", "dev.txt"]
    (clone / ".venv").mkdir()
    (clone / ".venv" / ".local").touch()
    assert planned(clone, "install") == planned(clone, "demo") == []
    assert planned(clone, "test") == ["dev.txt"]


def test_the_demo_after_the_tests_changes_no_version() -> None:
    demo, tests = {**pins("local.txt"), **pins("build.txt")}, pins("dev.txt")
    assert demo.items() <= tests.items()
    assert pins("run.txt").items() <= demo.items()


@pytest.mark.parametrize("python", ["/bin/false", "/no/python"])
def test_a_chosen_python_that_is_none_is_named_and_makes_nothing(clone: Path, python: str) -> None:
    done = make(clone, "demo", f"PYTHON={python}")
    assert done.returncode != 0
    assert f"make: {python} is no Python 3.11 or newer" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_failed_installation_is_not_taken_for_a_complete_one(clone: Path) -> None:
    """The .venv has a pip that fails, as without a network."""
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\ncase "$*" in *" install "*) echo no network >&2; exit 1;; esac\n')
    python.chmod(0o755)
    done = make(clone, "demo")
    assert done.returncode != 0
    assert "installing local.txt build.txt into .venv (once)" in done.stdout
    assert "no network" in done.stderr
    assert not (clone / ".venv" / ".local").exists()
