"""The public names of the package: `from stream_scorer import …`."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import stream_scorer
from stream_scorer import errors

PUBLIC = set(stream_scorer.__all__)  # tests/contract/test_public_names.py has them
ERRORS = sorted(name for name in PUBLIC if name in vars(errors))


def test_no_public_name_stands_twice() -> None:
    assert len(stream_scorer.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_loaded_from_its_module(name: str) -> None:
    value = getattr(stream_scorer, name)
    home = getattr(value, "__module__", None)
    assert home is None or getattr(import_module(home), value.__name__) is value


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_that_of_the_tree(name: str) -> None:
    assert getattr(stream_scorer, name) is getattr(errors, name)
    assert issubclass(getattr(errors, name), errors.StreamScorerError)


def test_errors_load_no_heavy_module() -> None:
    program = (
        "import sys\n"
        f"from stream_scorer import {', '.join(ERRORS)}\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('stream_scorer')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    foreign, ours = done.stdout.splitlines()
    assert not {"pydantic", "requests", "orjson", "urllib3", "confluent_kafka"} & set(foreign.split())
    assert ours.split() == ["stream_scorer", "stream_scorer.errors"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="ApiErorr"):
        stream_scorer.ApiErorr  # noqa: B018 - the access is the test
