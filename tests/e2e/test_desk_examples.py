"""The examples at the end of each help of the desk, run as they stand; places are those of the test's own topics."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest
from desk_harness import DeskHarness
from scoring_harness import FEATURES, ScoringHarness, event
from test_review_desk import put_in_review, score

from stream_scorer.cli import main, rejected, review
from stream_scorer.cli.examples import examples_of

if TYPE_CHECKING:
    from pathlib import Path

    from kafka_fixture import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

MODEL = '{"income": {"type": "integer"}, "age": {"type": "integer", "impute": 40}}'
COMMANDS = {"rejected": rejected.app, "review": review.app}
CASES = [
    pytest.param(group, command.callback, id=f"{group}-{command.name or command.callback.__name__}")
    for group, app in COMMANDS.items()
    for command in app.registered_commands
    if command.callback is not None
]


def seed(desk: DeskHarness) -> None:
    """Records for every example."""
    value = FEATURES.encode(event("C-10023", features={"income": "many", "age": 71}))
    for reason in ("wrong_type", "out_of_range", "expired"):
        desk.reject([("C-10023", value)], reason=reason)
    desk.reject([("L-1", FEATURES.encode(event("L-1", campaign_id="load-test")))])
    put_in_review(desk, [score("C-10023", score=0.95), score("C-2", review_reasons=["score_out_of_range"])])


@pytest.fixture
def desk(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeskHarness:
    """Records, and this process as an operator's: environment and an empty folder."""
    desk = DeskHarness(ScoringHarness(broker.bootstrap_servers))
    seed(desk)
    for name, setting in desk.environment(model__features=MODEL).items():
        if name.startswith("STREAM_SCORER_"):
            monkeypatch.setenv(name, setting)
    monkeypatch.chdir(tmp_path)
    return desk


@pytest.mark.parametrize(("group", "command"), CASES)
def test_the_examples_of_a_help(
    group: str, command: Any, desk: DeskHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = examples_of(command)
    assert len(examples) == 3
    places = {
        "contact-features-rejected/0/17": desk.rows(desk.stage.topics["rejected"])[0].place,
        "contact-scores-review/0/17": desk.rows(desk.stage.topics["review"])[0].place,
    }
    for example in examples:
        name, *arguments = shlex.split(example)
        assert name == group
        code = main([name, *(places.get(one, one) for one in arguments)])
        assert code == 0, f"{example}\n{capsys.readouterr().err}"
