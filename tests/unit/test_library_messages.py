"""Errors of the library name its arguments, not the settings of a worker."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import stream_scorer
from stream_scorer import ApiRefused, ApiUnavailable
from stream_scorer.core.scoring.api_response import Exchange
from stream_scorer.library.messages import api_error, in_library_words

PACKAGE = Path(stream_scorer.__file__).parent
ADAPTERS = [*(PACKAGE / "genesys").glob("*.py"), *(PACKAGE / "http_client").glob("*.py")]


def texts() -> list[str]:
    """Return the text literals of the adapters whose errors reach the library, without docstrings."""
    found = []
    for path in ADAPTERS:
        tree = ast.parse(path.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docs = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
        constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        found += [text for text in constants if isinstance(text, str) and text not in docs]
    return found


def test_no_text_of_the_adapters_keeps_the_name_of_a_setting() -> None:
    named = [text for text in texts() if "genesys." in text]
    assert len(named) > 5
    left = [text for text in map(in_library_words, named) if "genesys." in text or "callbacks." in text]
    assert left == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "check genesys.client_id, genesys.client_secret and genesys.region",
            "check client_id, client_secret and region",
        ),
        ("its URL (genesys.base_url, genesys.login_url or callbacks.url)", "its URL (base_url or login_url)"),
        ("the host genesys.example is unknown", "the host genesys.example is unknown"),
    ],
)
def test_settings_become_arguments(text: str, words: str) -> None:
    assert in_library_words(text) == words


def test_an_api_error_has_status_and_correlation_id() -> None:
    error = api_error(ApiRefused, "HTTP 403", Exchange(0, 0, 0.0, 403, "corr-1"))
    assert (error.status_code, error.correlation_id, str(error)) == (403, "corr-1", "HTTP 403")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - it is ours; a process pool does the same
    assert (type(again), again.status_code, again.correlation_id, str(again)) == (ApiRefused, 403, "corr-1", "HTTP 403")
    without = api_error(ApiUnavailable, "no answer", None)
    assert (without.status_code, without.correlation_id) == (None, None)
