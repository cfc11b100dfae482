"""`make audit ADVISORIES=…`: vulnerable versions are found without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TOOL = Path(__file__).parents[1] / "tools" / "offline_audit.py"


@pytest.fixture
def advisories(tmp_path: Path) -> Path:
    """One advisory lists the versions; one, in JSON, gives their range; one was withdrawn."""
    folder = tmp_path / "advisories"
    folder.mkdir()
    about = {"ecosystem": "PyPI"}
    listed = {"id": "A-1", "published": "2026-01-02T03:04:05Z", "details": "it is bad"}
    listed["affected"] = [{"package": {**about, "name": "Is.Listed"}, "versions": ["1.0", "1.1"]}]
    (folder / "a.yaml").write_text(yaml.safe_dump(listed))
    events = [{"introduced": "0"}, {"fixed": "2.0"}, {"introduced": "3.0"}, {"last_affected": "3.1"}]
    ranged = {
        "affected": [{"package": {**about, "name": "in-range"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
    }
    (folder / "b.json").write_text(json.dumps({"id": "B-1", **ranged}))
    (folder / "c.json").write_text(json.dumps({"id": "C-1", "withdrawn": "2026-01-02T03:04:05Z", **ranged}))
    return folder


def audit(advisories: Path, *pins: str) -> subprocess.CompletedProcess[str]:
    wanted = advisories.parent / "requirements.txt"
    wanted.write_text("".join(f"{pin} --hash=sha256:{0:064}\n" for pin in pins))
    command = [sys.executable, TOOL, advisories, "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    return subprocess.run([*command, "--requirement", wanted], check=False, capture_output=True, text=True)


def test_a_vulnerable_version_is_named(advisories: Path) -> None:
    done = audit(advisories, "is-listed==1.1", "in-range==3.1", "other==1.1")
    assert done.returncode == 1
    found = sorted(line.split()[:3] for line in done.stdout.splitlines()[2:])
    assert found == [["in-range", "3.1", "B-1"], ["is-listed", "1.1", "A-1"]]


def test_a_fixed_version_passes(advisories: Path) -> None:
    done = audit(advisories, "is-listed==1.2", "in-range==2.0")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "No known vulnerabilities found")


def test_a_folder_without_advisories_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = audit(tmp_path / "nothing", "is-listed==1.1")
    assert done.returncode == 1
    assert "holds no advisory about a Python package" in done.stderr
