"""Settings of any bytes, in the file and in the environment: settings, or `SettingsError`; never a secret in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_fuzz import DOUBLES, TEXTS, fuzz, mutilated

from stream_scorer.errors import SettingsError
from stream_scorer.settings.key_catalog import SECRETS, SECTIONS
from stream_scorer.settings.load import load
from stream_scorer.settings.names import variable
from stream_scorer.settings.sources import PLATFORM_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECRET = "s3cr3t-of-the-fuzz"
PATHS = [(section, key) for section, keys in SECTIONS.items() for key in keys]
VARIABLES = [*map(variable, PATHS), *(f"{variable(path)}_FILE" for path in SECRETS), *PLATFORM_VARIABLES]
GOOD = b"""[kafka]\nbootstrap_servers = "127.0.0.1:9092"
properties = { "client.rack" = "r1" }\nstart_from = 2030-01-31T06:00:00Z
[genesys]\nclient_secret = "s3cr3t-of-the-fuzz"\nmodel_id = "m"\ntimeout_s = 1.5\n[callbacks]
retry_delays_s = [60, 600]
[model.features.age]\ntype = "integer"\nimpute = 40
choices = [40, 41]\n[scoring]\nmax_contacts = 10\n"""
# What an environment can hold: anything but NUL, and what was no UTF-8 comes as surrogates.
ENVIRONMENT_TEXTS = st.one_of(
    TEXTS.map(lambda text: text.replace("\0", "")),
    st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
    st.sampled_from(["9" * 5_000, "-1", "1e999", "nan", "[" * 2_000, '{"a":' * 2_000, "true", "/", "/dev/null", "10"]),
    st.sampled_from(["2030-01-31T06:00:00Z", "0001-01-01T00:00:00+14:00", "http://[::1", "http://a:99999", "[60, 1]"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | DOUBLES | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    ).map(json.dumps),
)


def toml_of(value: Any) -> str:
    """A value as TOML; a text as JSON writes it, which TOML reads but for a few escapes: those are garbage as well."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_of(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    return value if isinstance(value, Raw) else json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


class Raw(str):
    """TOML as it stands."""

    __slots__ = ()


RAW = st.sampled_from(
    [
        "9" * 5_000,
        "0x" + "f" * 40,
        "2030-01-31T06:00:00Z",
        "1979-05-27",
        "07:32:00",
        "inf",
        "-nan",
        "1e400",
        "[" * 2_000,
    ]
).map(Raw)
VALUES = st.recursive(
    st.booleans() | st.integers() | DOUBLES | TEXTS | RAW,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "impute", "a"]), inner),
    max_leaves=5,
)
KEYS = st.sampled_from(PATHS) | st.sampled_from([(section, f"{key}_file") for section, key in SECRETS])
DOCUMENTS = st.lists(st.tuples(KEYS | st.tuples(TEXTS, TEXTS), VALUES), max_size=5, unique_by=lambda line: line[0]).map(
    lambda lines: "".join(f"{json.dumps(s)}.{json.dumps(k)} = {toml_of(v)}\n" for (s, k), v in lines).encode()
)


def check(file: Path | None, environ: Mapping[str, str]) -> None:
    try:
        shown = repr(load(file, environ=environ))
    except SettingsError as error:
        shown = str(error)
    assert shown.strip()
    assert SECRET not in shown
    assert all(line.isprintable() for line in shown.split("\n")), "one line for each problem"


@fuzz(150)
@given(st.binary(max_size=60) | mutilated(st.just(GOOD)) | DOCUMENTS)
def test_any_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.toml"
    file.write_bytes(content)
    check(file, {})


@fuzz(150)
@given(st.dictionaries(st.sampled_from(VARIABLES), ENVIRONMENT_TEXTS, max_size=5), TEXTS)
def test_any_environment(environ: dict[str, str], odd: str) -> None:
    check(None, {**environ, f"STREAM_SCORER_{odd}".replace("\0", ""): "x"})
    check(None, environ)


@fuzz(40)
@given(st.sampled_from(sorted(SECRETS)), TEXTS, st.integers(0, 2_000))
def test_a_secret_is_not_shown_whatever_is_wrong_with_it(path: tuple[str, str], odd: str, times: int) -> None:
    check(None, {variable(path): (SECRET + odd.replace("\0", "")) * times})


@pytest.mark.parametrize("content", ["callbacks.secret_file = '\\u0000'", "callbacks.secret_file = 'a\\u0000b'"])
def test_a_name_that_can_be_no_file_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.toml").write_text(content.replace("'", '"'))
    with pytest.raises(SettingsError, match=r"^callbacks\.secret: cannot read .*, named by callbacks\.secret_file"):
        load(tmp_path / "a.toml", environ={})


def test_a_number_of_thousands_of_digits_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f"scoring.max_contacts = {'9' * 5_000}")
    with pytest.raises(SettingsError, match=r"a\.toml is not valid TOML"):
        load(tmp_path / "a.toml", environ={})
