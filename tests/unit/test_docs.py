"""The pages against the code: their lists are complete, and their examples run."""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_walk import same_form

from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.core.scoring.types import Reason, ReviewReason
from stream_scorer.settings import Settings, load_settings
from stream_scorer.settings.key_catalog import SECTIONS

if TYPE_CHECKING:
    from stream_scorer.local.simulator import Simulator

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted(DOCS.rglob("*.md")),
]
EXAMPLES = REPOSITORY / "examples"
SIMULATOR = "http://127.0.0.1:8090"


def rows(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without the header row."""
    below = page.read_text().split(f"\n{heading}\n", 1)[1]
    table = below[below.index("\n|") :].lstrip("\n").split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def python_blocks(page: Path) -> list[str]:
    found = re.findall(r"^( *)```python\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


# --- links


def anchors(page: Path) -> set[str]:
    """Return GitHub's anchors of the headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def internal_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_internal_links_resolve(page: Path) -> None:
    links = internal_links(page)
    assert links or page.name == "CHANGELOG.md"
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_links_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in internal_links(index)}
    assert set(PAGES) - linked == {index}


def test_files_that_the_code_and_the_pages_name_exist() -> None:
    architecture = (DOCS / "architecture.md").read_text()
    folders = (
        "core",
        "genesys",
        "kafka",
        "scoring",
        "settings",
        "cli",
        "tests",
        "library",
        "callbacks",
        "runtime",
        "telemetry",
        "http_client",
    )
    named = set(re.findall(rf"`((?:{'|'.join(folders)})/[\w/]+\.py)`", architecture))
    assert named
    for name in named:
        assert (REPOSITORY / "stream_scorer" / name).exists() or (REPOSITORY / name).exists(), name


def test_the_folders_are_the_real_tree() -> None:
    tree = (DOCS / "architecture.md").read_text().split("## Folders\n\n```\n", 1)[1].split("```", 1)[0]
    package, listed = REPOSITORY / "stream_scorer", []
    folders = {0: REPOSITORY, 2: package}
    for line in tree.splitlines()[1:]:
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        path = folders[indent] / name
        assert path.exists(), name
        folders[indent + 2] = path
        listed.append(path)
    real = {path for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {path for path in listed if path.parent == package and path.is_dir()} == real


# --- settings


def test_the_reference_file_is_the_defaults() -> None:
    file = EXAMPLES / "reference.toml"
    assert load_settings(file, environ={"STREAM_SCORER_KAFKA__INSTANCE_ID": "x"}) == load_settings(
        environ={"STREAM_SCORER_KAFKA__INSTANCE_ID": "x"}
    )


def test_the_reference_file_has_every_key() -> None:
    text = (EXAMPLES / "reference.toml").read_text()
    present = {(section, key) for section, table in tomllib.loads(text).items() for key in table}
    section = ""
    for line in text.splitlines():
        section = match[1] if (match := re.match(r"\[(\w+)", line)) else section
        if match := re.match(r"# (\w+) = ", line):
            present.add((section, match[1]))
    assert present == {(section, key) for section, keys in SECTIONS.items() for key in keys}


def test_the_examples_in_the_reference_file_are_read() -> None:
    """A line like `# key = value` must be valid without its comment mark."""
    text = re.sub(r"^# (\w+ = )", r"\1", (EXAMPLES / "reference.toml").read_text(), flags=re.MULTILINE)
    document = tomllib.loads(text)
    settings = Settings.model_validate(document)
    assert settings.genesys.api_url == SIMULATOR
    assert settings.scoring.max_event_age_s == 86400
    assert settings.verification.max_interval_width == 0.8


def test_the_minimal_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden\n")
    environ = {"STREAM_SCORER_GENESYS__CLIENT_SECRET_FILE": str(secret), "STREAM_SCORER_KAFKA__INSTANCE_ID": "x"}
    settings = load_settings(EXAMPLES / "minimal.toml", environ=environ)
    settings.require_api()
    assert settings.warnings == ()
    assert settings.genesys.client_secret is not None
    assert settings.genesys.client_secret.get_secret_value() == "hidden"
    defaults = load_settings(environ=environ)
    assert settings.kafka == defaults.kafka.model_copy(update={"bootstrap_servers": "kafka-1:9092,kafka-2:9092"})
    assert settings.genesys == defaults.genesys.model_copy(
        update={
            "region": "mypurecloud.de",
            "client_id": "00000000-0000-0000-0000-000000000000",
            "model_id": "my-model",
        }
    )
    assert list(settings.model.features.values()) == [
        Feature("previous_calls", "integer", impute=0, minimum=0),
        Feature("avg_handle_time", "number", impute=180.0),
        Feature("last_contact_days", "integer", impute=30),
        Feature("segment_id", "string", choices=("basic", "premium", "trial")),
    ]
    for section in ("topics", "schema_registry", "scoring", "verification", "callbacks", "admin"):
        assert getattr(settings, section) == getattr(defaults, section)


def test_toml_and_environment_in_operations_go_together(tmp_path: Path) -> None:
    text = (DOCS / "operations.md").read_text()
    [toml] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "scorer.toml").write_text(toml)
    [variable] = re.findall(r"`STREAM_SCORER_KAFKA__PROPERTIES='(.*)'`", text)
    settings = load_settings(tmp_path / "scorer.toml", environ={"STREAM_SCORER_KAFKA__PROPERTIES": variable})
    assert dict(settings.kafka.properties) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "scorer",
        "sasl.password": "…",
    }


# --- reasons


def test_every_reason_is_in_the_contract_in_its_order() -> None:
    section = "## 5 Outcomes of a contact"
    listed = [first.strip("`") for first, _ in rows(DOCS / "contract.md", section)]
    assert listed == [reason.value for reason in Reason]
    text = (DOCS / "contract.md").read_text()
    review = text.split("**Review.**", 1)[1].split("\n\n", 1)[0]
    assert re.findall(r"`(\w+)`", review) == [reason.value for reason in ReviewReason]


# --- symptoms


@pytest.mark.parametrize("heading", ["## Before the first score", "## The worker does not start or stops"])
def test_the_messages_of_the_symptoms_are_in_the_code(heading: str) -> None:
    sources = [*(REPOSITORY / "stream_scorer").rglob("*.py"), REPOSITORY / "requirements" / "install.sh"]
    # A message may have several lines in the source.
    code = "\n".join(re.sub(r'"\n\s*f?"', "", source.read_text()) for source in sources)
    symptoms = [
        quoted for row in rows(DOCS / "troubleshooting.md", heading) for quoted in re.findall(r"`([^`]+)`", row[0])
    ]
    fragments = [fragment.strip() for symptom in symptoms for fragment in symptom.split("…") if fragment.strip()]
    assert fragments
    assert [fragment for fragment in fragments if fragment not in code] == []


# --- code


def test_the_screen_of_the_readme_is_from_the_tutorial() -> None:
    """A test runs the tutorial; the README has some of its lines, in the same order."""
    [screen] = re.findall(r"```console\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / "tutorial.md").read_text(), re.DOTALL)
    printed = iter(same_form("".join(blocks)))
    assert [line for line in same_form(screen) if line not in printed] == []


def test_the_ten_lines_of_the_readme_run(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0)
    monkeypatch.chdir(tmp_path)
    [block] = python_blocks(REPOSITORY / "README.md")
    assert SIMULATOR in block
    exec(block.replace(SIMULATOR, simulator.base_url), {})  # noqa: S102 - it is ours
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["c-1", "c-2"]


def test_the_code_of_the_library_page_runs(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0)
    monkeypatch.chdir(tmp_path)
    first, in_flight, _, after_an_error, second = python_blocks(DOCS / "library.md")
    names: dict[str, Any] = {}
    exec(first.replace(SIMULATOR, simulator.base_url), names)  # noqa: S102 - it is ours
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:1] for line in printed[:1]] == [["c-1"]]
    assert [line.split()[:3] for line in printed[1:]] == [
        ["1", "c-2", "refused_by_api"],
        ["2", "c-3", "missing_feature"],
    ]
    assert (tmp_path / "predictive_engagement_audit.log").exists()
    exec(second.replace(SIMULATOR, simulator.base_url), {})  # noqa: S102 - it is ours
    assert "'contactId': 'c-1'" in capsys.readouterr().out
    saved: list[Any] = []
    closed = names["calculator"]
    calculator = names["PredictiveScoreCalculator"](
        *("simulator-model", "simulator-client", "simulator-secret", closed.expected_features, closed.imputation_map),
        *(lambda _: 1 / 0, simulator.base_url),
    )
    raw = [{"contactId": "c-1", "features": {"previous_calls": 1}}]
    exec(in_flight, {"calculator": calculator, "contacts": raw})  # noqa: S102 - it is ours
    assert "1 of 1 contacts" in capsys.readouterr().out
    with calculator, pytest.raises(ZeroDivisionError):
        exec(after_an_error, {"calculator": calculator, "contacts": raw, "save": saved.extend})  # noqa: S102 - it is ours
    assert [one.contact_id for one in saved] == ["c-1"]


def test_the_frame_of_the_library_page_runs(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0)
    monkeypatch.chdir(tmp_path)
    first, _, frame, *_ = python_blocks(DOCS / "library.md")
    names: dict[str, Any] = {}
    exec(first.replace(SIMULATOR, simulator.base_url), names)  # noqa: S102 - it is ours
    closed = names["calculator"]
    expected = ",".join(closed.expected_features)
    Path("customers.csv").write_text(f"customer_id,{expected},more\n1,3,,5,,x\n2,,,,,x\n")
    names["calculator"] = names["PredictiveScoreCalculator"](
        *("simulator-model", "simulator-client", "simulator-secret", closed.expected_features, closed.imputation_map),
        base_url=simulator.base_url,
    )
    capsys.readouterr()
    exec(frame, names)  # noqa: S102 - it is ours
    assert names["results"]["outcome"].to_list() == ["scored", "rejected"]
    assert names["frame"]["score"].isna().to_list() == [False, True]
    assert "missing_feature" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_the_pages_compiles(page: Path) -> None:
    for block in python_blocks(page):
        compile(block, page.name, "exec")


def test_the_traps_are_numbered_in_order() -> None:
    """Comments, mutants and other pages name them by number."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("### The traps\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
