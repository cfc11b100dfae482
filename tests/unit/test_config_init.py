"""``stream-scorer config init``: a settings file that loads, whose comments are the defaults, and guessed features."""

from __future__ import annotations

import re
import shlex
import stat
import tomllib
from typing import TYPE_CHECKING

import pytest

from stream_scorer.cli import main
from stream_scorer.cli.config_init import init
from stream_scorer.cli.examples import examples_of
from stream_scorer.cli.local_settings import local_values
from stream_scorer.contact_files.feature_columns import read_feature_columns
from stream_scorer.contact_files.rows import cell_type
from stream_scorer.local.receiver.config import ReceiverConfig
from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.settings import Settings, load_settings
from stream_scorer.settings.key_catalog import SECTIONS
from stream_scorer.settings.template import settings_file

if TYPE_CHECKING:
    from pathlib import Path

FIXED = {"STREAM_SCORER_KAFKA__INSTANCE_ID": "x"}
CSV = """contact_id;event_id;calls;income;vip;segment;zip;phone;attributes.phone;nothing
a;;1;1.5;true;x;01234;+4930;+49;
b;;-2;2;FALSE;y;99999;1;;
c;;;3e2;;;1;2;;
d;too few cells
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", raising=False)


@pytest.fixture
def contacts(tmp_path: Path) -> Path:
    path = tmp_path / "contacts.csv"
    path.write_text(CSV)
    return path


def uncommented(text: str) -> str:
    """The file with every default as a value."""
    return re.sub(r"(?m)^# (?=(\[model\.features\]|[a-z_]+ = (?!\.\.\.$)))", "", text)


def test_the_comments_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "scorer.toml"
    path.write_text(settings_file([], {}))
    assert load_settings(path, environ=FIXED) == Settings.model_validate({"kafka": {"instance_id": "x"}})
    text = uncommented(path.read_text())
    path.write_text(text)
    assert load_settings(path, environ=FIXED) == load_settings(environ=FIXED)
    values = tomllib.loads(text)
    assert values["model"]["features"].keys() == {
        "previous_calls",
        "avg_handle_time",
        "last_contact_days",
        "segment_id",
    }
    assert values["scoring"]["retry_delays_s"] == [60, 600, 3600]


def test_every_key_is_there_with_its_meaning_type_and_variable() -> None:
    text = settings_file(["first"], {})
    assert text.startswith("# first\n\n\n[kafka]\n")
    for section, keys in SECTIONS.items():
        part = text.split(f"\n[{section}]\n")[1].split("\n\n\n[")[0]
        for key in keys:
            name = "model.features" if (section, key) == ("model", "features") else key
            assert re.search(rf"(?m)^# \[?{name}", part)
            if (section, key) != ("model", "features"):
                assert f"STREAM_SCORER_{section.upper()}__{key.upper()})" in " ".join(part.split())
    assert "`" not in text
    assert "](" not in text
    assert all(len(line) <= 102 for line in text.splitlines() if " = " not in line)


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("0", "integer"),
        ("-12", "integer"),
        ("9007199254740991", "integer"),
        ("9007199254740992", "number"),
        ("1.5", "number"),
        ("-.5e3", "number"),
        ("0.25", "number"),
        ("3.0", "number"),
        ("1e999", "string"),
        ("007", "string"),
        ("-007", "string"),
        ("+49301234", "string"),
        ("1,5", "string"),
        ("nan", "string"),
        ("True", "boolean"),
        ("false ", "boolean"),
        ("yes", "string"),
        ("2030-01-31", "string"),
        ("9" * 500, "string"),
    ],
)
def test_the_type_of_a_cell(cell: str, kind: str) -> None:
    assert cell_type(cell) == kind


def test_the_features_of_a_file(contacts: Path) -> None:
    found = {column.name: (column.type, column.empty, column.rows) for column in read_feature_columns(contacts)}
    assert found == {
        "calls": ("integer", 1, 3),
        "income": ("number", 0, 3),
        "vip": ("boolean", 1, 3),
        "segment": ("string", 1, 3),
        "zip": ("string", 0, 3),
        "phone": ("string", 0, 3),
        "nothing": (None, 3, 3),
    }


def test_a_file_of_a_csv_loads_and_shows_no_value(
    contacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scorer.toml"
    assert main(["config", "init", "--from-csv", str(contacts), "--out", str(out)]) == 0
    assert f"config check --config {out}" in capsys.readouterr().err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    features = load_settings(out, environ={}).model.features
    assert {name: feature.type for name, feature in features.items()} == {
        "calls": "integer",
        "income": "number",
        "vip": "boolean",
        "segment": "string",
        "zip": "string",
        "phone": "string",
        "nothing": "string",
    }
    text = out.read_text()
    assert 'calls = { type = "integer" }  # empty in 1 of 3 rows: set impute, or these contacts are rejected' in text
    assert 'nothing = { type = "string" }  # no row has a value: set the type' in text
    assert "01234" not in text
    assert "+4930" not in text


def test_odd_names_and_many_columns_load(tmp_path: Path) -> None:
    names = ["a b", "ü", "a.b", "a\x7fb", "x=y#z", "=1", *(f"f{number}" for number in range(60))]
    path, out = tmp_path / "wide.csv", tmp_path / "wide.toml"
    path.write_text(",".join(["contact_id", *names, '"quo""ted"']) + "\n")
    assert main(["config", "init", "--from-csv", str(path), "--out", str(out)]) == 0
    model = load_settings(out, environ={}).model
    assert list(model.features) == [*names, 'quo"ted']
    assert model.max_features == 67


def test_a_local_file_is_for_simulator_and_receiver(tmp_path: Path) -> None:
    out = tmp_path / "local.toml"
    assert main(["config", "init", "--local", "--out", str(out)]) == 0
    settings = load_settings(out, environ={})
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert settings.genesys.api_url == settings.genesys.token_url == "http://127.0.0.1:8090"
    assert settings.genesys.read_client_secret() == SimulatorConfig().client_secret
    assert settings.callbacks.url == "http://127.0.0.1:8091/callbacks"
    assert settings.callbacks.secret is not None
    assert settings.callbacks.secret.get_secret_value() == ReceiverConfig().secret
    assert len(local_values()) == 9
    settings.require_api()


def test_standard_output_is_the_file_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert tomllib.loads(said.out).keys() == SECTIONS.keys()


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("absent.csv", None, "No such file"),
        ("ids.csv", "id,age\n1,2\n", "the header has no column contact_id"),
        ("none.csv", "contact_id,attributes.phone\n1,2\n", "no column is a feature"),
        ("empty.csv", "", "the file is empty"),
        ("twice.csv", "contact_id,age,age\n", "twice"),
        ("page.csv", "<html><table>", "is HTML or XML"),
    ],
)
def test_a_file_that_is_no_contact_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, part: str
) -> None:
    path, out = tmp_path / name, tmp_path / "scorer.toml"
    if content is not None:
        path.write_text(content)
    assert main(["config", "init", "--from-csv", str(path), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert part in said.err
    assert not out.exists()


def test_an_existing_file_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scorer.toml"
    out.write_text("mine")
    assert main(["config", "init", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["config", "init", "--out", str(tmp_path / "no" / "scorer.toml")]) == 2


def test_the_examples_of_the_help(
    contacts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(contacts.parent)
    examples = examples_of(init)
    assert len(examples) == 3
    for example in examples:
        assert main(shlex.split(example)) == 0, capsys.readouterr().err
        load_settings(contacts.parent / "scorer.toml", environ={})
        (contacts.parent / "scorer.toml").unlink()
