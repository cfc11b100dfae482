"""Scenarios: their files, the shipped ones, and their execution with a simulated clock."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.scoring.types import Reason
from stream_scorer.errors import InputError, SettingsError
from stream_scorer.local.demo.contacts import contacts, no_faults
from stream_scorer.local.demo.scenario_view import (
    WORKER_SETTINGS,
    closing_line,
    introduction,
    scene,
    with_labels,
    worker_environment,
)
from stream_scorer.local.simulator.api import SimulatedApi
from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.scenario import SHIPPED, Scenario, load_scenario, parse_scenario
from stream_scorer.local.simulator.scenario_player import PlayState
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import load_settings

REQUIRED = {
    "STREAM_SCORER_GENESYS__CLIENT_ID": "id",
    "STREAM_SCORER_GENESYS__CLIENT_SECRET": "secret",
    "STREAM_SCORER_GENESYS__MODEL_ID": "model",
}
FAULT = {"action": {"status": 503}}


class Stage:
    """A simulated platform with a clock of its own and a scenario of these steps."""

    def __init__(self, *steps: dict[str, Any], **more: Any) -> None:
        self.now = 500.0
        self.lines: list[str] = []
        self.api = SimulatedApi(SimulatorConfig(quota=1000), clock=lambda: self.now)
        self.api.play(parse_scenario({"step": list(steps), **more}, "here"), self.lines.append)

    def request(self, at_s: float) -> int | None:
        """Send a score request at a time after the first; return the status of its fault."""
        self.now = 500.0 + at_s
        self.api.arrived()
        action = self.api.faults.take("score")
        return None if action is None else action.status

    def state(self) -> PlayState:
        state = self.api.playing()
        assert state is not None
        return state


# --- files


@pytest.mark.parametrize("name", SHIPPED)
def test_those_that_ship_can_be_loaded_by_their_name(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.description
    assert len({scenario.label(index) for index in range(len(scenario.steps))}) == len(scenario.steps)


def test_all_that_are_in_the_package_are_known_by_name() -> None:
    folder = Path(load_scenario.__code__.co_filename).parents[1] / "scenarios"
    assert sorted(path.stem for path in folder.iterdir()) == sorted(SHIPPED)


def test_a_file_may_say_everything(tmp_path: Path) -> None:
    file = tmp_path / "my-day.toml"
    file.write_text(
        'description = "x"\nspeed = 2\n[[step]]\nname = "a"\nat_s = 1\nfor_s = 3.5\nconfig = {quota = 1}\n'
        "revoke_tokens = true\nfaults = [{times = 2, action = {status = 503}}, {match = {path = 'token'}, "
        "action = {drop = 'before'}}]\n[expect]\nrefused = {prefix = 'P-'}\n"
    )
    scenario = load_scenario(str(file))
    assert (scenario.name, scenario.speed) == ("my-day", 2)
    [step] = scenario.steps
    assert [fault.times for fault in step.faults] == [2, None], "without times: as long as the step lasts"
    assert [fault.match.path for fault in step.faults] == ["score", "token"]
    assert scenario.refuses("P-1")
    assert not scenario.refuses("1-P-")
    assert not load_scenario("bad-day").refuses("P-1")


def test_a_scenario_survives_its_way_through_json() -> None:
    for name in SHIPPED:
        scenario = load_scenario(name)
        sent = json.loads(json.dumps(scenario.model_dump(mode="json", exclude_unset=True, by_alias=True)))
        assert parse_scenario(sent, "sent") == scenario


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["step: Field required"]),
        ("step = []", ["step: "]),
        ("step = [1]", ["step 1: "]),
        ("[[step]]\nat_s = 0", ["step 1: a step needs config, faults or revoke_tokens"]),
        ("[[step]]\nat_s = 0\nrevoke_tokens = true\nfor_s = 1", ["step 1: ", "leave out for_s"]),
        ("[[step]]\nname = 'storm'\nat_s = -1\nrevoke_tokens = true", ["step 1 'storm', at_s: "]),
        ("[[step]]\nat_s = 0\nconfig = {quotas = 1}", ["step 1, config: quotas: "]),
        ("[[step]]\nat_s = 0\nrevoke_tokens = true\n[[step]]\nat_s = 0\nfor_s = 0", ["step 2, for_s: "]),
        ("[[step]]\nat_s = 0\nfaults = [{action = {status = 42}}]", ["step 1, faults.0.action.status: "]),
        ("[[step]]\nat_s = 0\nfaults = [{}]", ["step 1, faults.0.action: "]),
        ("speed = 0\n[[step]]\nat_s = 0\nrevoke_tokens = true", ["speed: "]),
        ("steps = 1", ["step: ", "steps: "]),
        ("[step]\nat_s = 0", ["step: "]),
        ("[[step]\n", ["it is not TOML"]),
        ("x = " + "[" * 100_000, ["it is not TOML"]),
        ("#" * 1_000_001, ["larger than 1,000,000 bytes"]),
    ],
)
def test_what_is_wrong_is_one_line_that_names_file_step_and_field(text: str, parts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises((SettingsError, InputError)) as refusal:
        load_scenario(str(file))
    line = str(refusal.value)
    assert line.startswith(f"scenario {file}: ")
    assert all(part in line for part in parts), line
    assert "\n" not in line


def test_no_file_and_no_name_is_said_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bad-day, broken-contract, poison"):
        load_scenario("worst-day")
    with pytest.raises(InputError, match="directory"):
        load_scenario(str(tmp_path))


def test_the_page_shows_a_scenario_and_all_that_ship() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    shown = parse_scenario(tomllib.loads(page.split("```toml\n", 1)[1].split("```", 1)[0]), "shown")
    assert len(shown.steps) == 2
    for name in SHIPPED:
        assert f"| `{name}` |" in page


def test_what_is_no_table_is_refused() -> None:
    for content in ([], None, 3, "x"):
        with pytest.raises(SettingsError, match="scenario here"):
            parse_scenario(content, "here")


# --- playing


def test_time_begins_with_the_first_request() -> None:
    stage = Stage({"at_s": 0, "for_s": 10, "faults": [FAULT]})
    stage.now += 1000
    assert stage.state() == PlayState("scenario", None, (), ("step 1",), over=False)
    stage.now -= 1000
    assert [stage.request(at_s) for at_s in (0, 9.9, 10.0, 100)] == [503, 503, None, None]
    assert stage.state().over


def test_a_fault_is_limited_by_its_step_and_its_times() -> None:
    stage = Stage({"at_s": 1, "for_s": 2, "faults": [{**FAULT, "times": 1}, {"action": {"status": 429}}]})
    assert [stage.request(at_s) for at_s in (0, 1, 1.5, 2, 3)] == [None, 503, 429, 429, None]


def test_steps_overlap_and_follow_each_other_without_a_gap() -> None:
    stage = Stage(
        {"name": "a", "at_s": 0, "for_s": 4, "faults": [FAULT], "config": {"quota": 1, "latency_ms": 5}},
        {"name": "b", "at_s": 2, "for_s": 4, "faults": [{"action": {"status": 429}}], "config": {"quota": 2}},
        {"name": "c", "at_s": 6, "faults": [{"action": {"status": 500}}]},
    )
    seen = []
    for at_s in (0, 2, 4, 6, 60):
        status = stage.request(at_s)
        seen.append((status, stage.api.config.quota, stage.api.config.latency_ms, stage.state().playing))
    assert seen == [
        (503, 1, 5, ("a",)),
        (503, 2, 5, ("a", "b")),
        (429, 2, 0, ("b",)),
        (500, 1000, 0, ("c",)),
        (500, 1000, 0, ("c",)),
    ]
    assert stage.lines == ["0 s: a, for 4 s", "2 s: b, for 4 s", "4 s: a: over", "6 s: b: over", "6 s: c"]
    assert stage.state() == PlayState("scenario", 60.0, ("c",), (), over=True)


def test_speed_shortens_every_time() -> None:
    stage = Stage({"at_s": 10, "for_s": 10, "faults": [FAULT]}, speed=10)
    assert [stage.request(at_s) for at_s in (0, 0.9, 1, 1.9, 2)] == [None, None, 503, 503, None]
    assert stage.lines == ["1 s: step 1, for 1 s", "2 s: step 1: over"]


def test_steps_without_a_request_end_on_time() -> None:
    stage = Stage({"at_s": 1, "for_s": 1, "faults": [FAULT], "config": {"quota": 1}})
    assert stage.request(0) is None
    assert stage.request(5) is None
    assert stage.api.config.quota == 1000
    assert len(stage.lines) == 2


def test_tokens_are_revoked_once() -> None:
    stage = Stage({"name": "r", "at_s": 1, "revoke_tokens": True})
    stage.request(0)
    old = stage.api.tokens.issue(100, stage.now)
    stage.request(1)
    assert not stage.api.tokens.valid(old, stage.now)
    new = stage.api.tokens.issue(100, stage.now)
    stage.request(2)
    assert stage.api.tokens.valid(new, stage.now)
    assert stage.state().playing == ()


def test_changes_made_meanwhile_outlast_the_scenario_and_other_faults_stay() -> None:
    stage = Stage({"at_s": 0, "faults": [FAULT], "config": {"quota": 1}})
    stage.request(0)
    stage.api.change({"quota": 7, "latency_ms": 3})
    assert (stage.api.config.quota, stage.api.config.latency_ms) == (1, 3)
    stage.api.faults.add(load_scenario("poison").steps[0].faults[0])
    stage.api.stop_playing()
    assert stage.api.config.quota == 7
    assert len(stage.api.faults.state()) == 1
    assert stage.api.playing() is None


def test_another_scenario_takes_the_place_and_reset_ends_it() -> None:
    stage = Stage({"at_s": 0, "faults": [FAULT], "config": {"quota": 1}})
    assert stage.request(0) == 503
    stage.api.play(parse_scenario({"step": [{"at_s": 5, "faults": [FAULT]}]}, "here"))
    assert (stage.request(1), stage.api.config.quota) == (None, 1000)
    assert stage.request(6) == 503, "its time starts again"
    stage.api.reset()
    assert stage.api.playing() is None
    assert stage.request(7) is None


def test_a_scenario_is_a_value() -> None:
    scenario = load_scenario("bad-day")
    assert isinstance(scenario, Scenario)
    with pytest.raises(ValueError, match="frozen"):
        scenario.speed = 2.0  # type: ignore[misc]


# --- the demo


def test_the_demo_expects_the_refused_contacts_to_be_rejected_and_nothing_else_to_be_wrong_with_them() -> None:
    codec = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
    scenario = parse_scenario(
        {"step": [{"at_s": 0, "revoke_tokens": True}], "expect": {"refused": {"prefix": "DEMO-000000"}}}, "here"
    )
    plain = list(contacts(codec, 200, seed=1, now_ms=0))
    assert list(with_labels(contacts(codec, 200, seed=1, now_ms=0), no_faults)) == plain
    played = list(with_labels(contacts(codec, 200, seed=1, now_ms=0, spared=scenario.refuses), scenario.refuses))
    refused = [record for record in played if record.key.startswith(b"DEMO-000000")]
    assert len(refused) >= 10
    assert {record.rejected_for for record in refused} == {Reason.REFUSED_BY_API}
    others = [record.rejected_for for record in played if record not in refused]
    assert len(others) == 200 - len(refused)
    assert Counter(others) - Counter(record.rejected_for for record in plain) == Counter()


def test_the_worker_of_the_demo_has_the_settings_that_the_demo_prints() -> None:
    settings = load_settings(environ={**REQUIRED, **worker_environment()})
    text = "\n".join(introduction(load_scenario("poison")))
    for name, value in WORKER_SETTINGS.items():
        section, key = name.split(".")
        assert getattr(getattr(settings, section), key) == float(value)
        assert f"{name} = {value}" in text
    assert "only those that it always refuses" in text
    assert "no contact may be lost or rejected" in introduction(load_scenario("bad-day"))[-1]


class FakeSimulator:
    """Simulator with a fixed state and account, without HTTP."""

    def __init__(self, state: PlayState | None, **requests: dict[str, int]) -> None:
        self._state, self._requests = state, requests

    def playing(self) -> PlayState | None:
        return self._state

    def stats(self) -> Any:
        return SimpleNamespace(requests=self._requests)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (PlayState("s", None, (), ("a",), over=False), "waits for the first request"),
        (PlayState("s", 1.0, ("a", "b"), (), over=False), "a, b"),
        (PlayState("s", 1.0, ("a",), (), over=True), "a"),
        (PlayState("s", 1.0, (), ("b",), over=False), "nothing wrong just now"),
        (PlayState("s", 1.0, (), (), over=True), "over"),
    ],
)
def test_the_scene_is_described_in_a_few_words(state: PlayState, words: str) -> None:
    assert scene(FakeSimulator(state)) == words  # type: ignore[arg-type]


def test_the_summary_has_the_responses_and_the_steps_not_played() -> None:
    state = PlayState("s", 1.0, (), ("b", "c"), over=False)
    simulator = FakeSimulator(state, token={"200": 1}, score={"200": 1000, "503": 2}, other={"404": 1})
    assert closing_line(simulator) == (  # type: ignore[arg-type]
        "scenario s: answers of the simulator by status 200: 1,001, 503: 2; "
        "the contacts were done before these steps began: b, c"
    )
    assert closing_line(FakeSimulator(None)) is None  # type: ignore[arg-type]
