"""Mutation tests of the harness: each mistake that DESIGN.md warns of is made in a copy of the package and caught.

`test_steps.py` runs the same scenarios with the present code. Mistakes in the rules of
`core.scoring.response_policy` and its neighbours, and in the transactions of planner and deliverer, are each caught by
one assertion of one unit test.
"""

from __future__ import annotations

import compileall
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from mutation_runner import POLICY_MUTANTS, STANDS_STILL, Mutant, mutants
from scenarios import SCENARIOS
from verifier import violations
from worker_harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from scenes import Scenario

every_mutant = pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
every_policy_mutant = pytest.mark.parametrize("mutant", mutants(POLICY_MUTANTS), ids=lambda mutant: mutant.name)


@pytest.mark.parametrize("mutant", [*mutants(), *mutants(POLICY_MUTANTS)], ids=lambda mutant: mutant.name)
def test_it_applies_to_the_present_code(mutant: Mutant, tmp_path: Path) -> None:
    mutant.plant(tmp_path)
    changed = [
        file
        for file in sorted((tmp_path / "stream_scorer").rglob("*.py"))
        if file.read_text(encoding="utf-8") != (_original(file, tmp_path)).read_text(encoding="utf-8")
    ]
    assert changed, "it changes nothing"
    assert all(compileall.compile_file(file, quiet=1) for file in changed)
    assert mutant.caught_by in SCENARIOS or (ROOT / mutant.caught_by.partition("::")[0]).exists()


@every_policy_mutant
@pytest.mark.slow
def test_it_is_caught_by_its_own_assertion(mutant: Mutant, tmp_path: Path) -> None:
    assert mutant.finding in mutant.failed_assertions(tmp_path)


@every_mutant
@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(280)
def test_it_is_caught(mutant: Mutant, scene: Scenario, tmp_path: Path) -> None:
    environment = mutant.plant(tmp_path / "mutant")
    try:
        state = SCENARIOS[mutant.caught_by](replace(scene, code=environment))
    except AssertionError as error:
        said = str(error)
        assert "partition assigned" in said, f"{mutant.name} did not even begin to work\n{said}"
        kinds = {STANDS_STILL}
    else:
        kinds = {violation.kind for violation in violations(state)}
    print(f"\n{mutant.name}: {', '.join(sorted(kinds))}")  # noqa: T201 - what it was caught by
    assert kinds & mutant.kinds, f"{mutant.name} was not caught as {mutant.kinds}: found {kinds or 'nothing'}"


def _original(file: Path, folder: Path) -> Path:
    return ROOT / file.relative_to(folder)
