"""Mistakes on purpose: patches that are applied to a copy of the package, for the harness to catch.

A patch begins with what the mistake is and a line ``Caught by: <scenario>: <kinds of violation>``; ``stands still``
among the kinds says that the worker does not go on by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support_worker import ROOT

MUTANTS = Path(__file__).parent / "mutants"
STANDS_STILL = "stands still"
_CAUGHT_BY = re.compile(r"^Caught by: (\w+): (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake.

    Attributes:
        name: of its file.
        scenario: the one that has to catch it.
        kinds: the violations of which one must be found.
    """

    name: str
    scenario: str
    kinds: tuple[str, ...]

    @property
    def patch(self) -> Path:
        """Its file."""
        return MUTANTS / f"{self.name}.patch"

    def plant(self, folder: Path) -> dict[str, str]:
        """Applies it to a copy of the package; the environment that makes a worker run that copy.

        Raises:
            AssertionError: it does not apply to the code as it is now.
        """
        shutil.copytree(ROOT / "stream_scorer", folder / "stream_scorer", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "schemas", folder / "schemas")
        # A repository above the folder would make git take the patch for its own files, and leave these alone.
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


def mutants() -> list[Mutant]:
    """All of them, by name."""
    return [_read(patch) for patch in sorted(MUTANTS.glob("*.patch"))]


def _read(patch: Path) -> Mutant:
    found = _CAUGHT_BY.search(patch.read_text(encoding="utf-8"))
    assert found is not None, f"{patch.name} does not say what catches it"
    return Mutant(patch.stem, found.group(1), tuple(found.group(2).split(", ")))
