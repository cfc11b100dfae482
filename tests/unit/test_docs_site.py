"""The site's settings (docs/site/conf.py), without the generator: its navigation has every page of the index."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs" / "README.md"


def navigation() -> str:
    """Return the text that is appended to the index."""
    conf: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "site" / "conf.py"))
    text = INDEX.read_text(encoding="utf-8")
    source = [text]
    conf["_add_navigation"](None, "docs/README", source)
    return source[0][source[0].index("\n```{toctree}") :]


def test_the_navigation_has_every_page_of_the_index() -> None:
    linked = re.findall(r"\]\(([^)]+)\.md\)", INDEX.read_text(encoding="utf-8"))
    listed = re.findall(r"<(.+)>", navigation())
    assert sorted(set(listed)) == sorted(set(linked))
    assert len(listed) == len(set(listed))


def test_the_navigation_has_the_groups_of_the_index() -> None:
    headings = re.findall(r"^## (.+)$", INDEX.read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r":caption: (.+)", navigation()) == headings


def test_a_link_to_a_folder_is_its_text() -> None:
    conf: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "site" / "conf.py"))
    source = ["[schemas](../schemas), [file](../examples/minimal.toml)"]
    conf["_add_navigation"](None, "docs/contract", source)
    assert source == ["schemas, [file](../examples/minimal.toml)"]
