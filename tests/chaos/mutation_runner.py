"""Mutation tests: patches that are applied to a copy of the package and that the harness has to catch.

A patch begins with a description of the mistake and a line ``Caught by: <scenario>: <kinds of violation>``;
``stands still`` among the kinds means that the worker does not recover. For a mistake in a rule that is visible without
Kafka, the line is ``Caught by: <unit test>: <the assertion that fails>``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from worker_harness import ROOT

MUTANTS = Path(__file__).parent / "mutants"
POLICY_MUTANTS = Path(__file__).parent / "policy_mutants"
STANDS_STILL = "stands still"
_CAUGHT_BY = re.compile(r"^Caught by: (\S+): (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake.

    Attributes:
        patch: its file.
        caught_by: the scenario, or the unit test, that has to catch it.
        finding: the violations of which one must be found, or the assertion that must fail.
    """

    patch: Path
    caught_by: str
    finding: str

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.patch.stem

    @property
    def kinds(self) -> set[str]:
        """The violations of which one must be found."""
        return set(self.finding.split(", "))

    def plant(self, folder: Path) -> dict[str, str]:
        """Apply it to a copy of the package; return the environment in which a worker runs that copy.

        Raises:
            AssertionError: it does not apply to the present code.
        """
        shutil.copytree(ROOT / "stream_scorer", folder / "stream_scorer", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "schemas", folder / "schemas")
        # Within another repository, git would apply the patch to the files of that repository.
        elsewhere = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
        applied = subprocess.run(
            ["git", "apply", "-p1", str(self.patch)],
            cwd=folder,
            env=elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
        assert applied.returncode == 0, f"{self.patch.name} does not apply any more: {applied.stderr}"
        # Without the safe path a worker would take the package from the working directory.
        return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}

    def failed_assertions(self, folder: Path) -> str:
        """Run its unit test on a copy of the package with it, and return the lines that failed."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", self.caught_by]
        environment = {**os.environ, **self.plant(folder)}
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 1, f"{self.name} was not caught by {self.caught_by}: {ran.stdout}"
        return "\n".join(line[1:].strip() for line in ran.stdout.splitlines() if line.startswith(">"))


def mutants(folder: Path = MUTANTS) -> list[Mutant]:
    """All of a folder, by name."""
    return [_read(patch) for patch in sorted(folder.glob("*.patch"))]


def _read(patch: Path) -> Mutant:
    found = _CAUGHT_BY.search(patch.read_text(encoding="utf-8"))
    assert found is not None, f"{patch.name} does not say what catches it"
    return Mutant(patch, found.group(1), found.group(2))
