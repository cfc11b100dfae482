"""Invalid settings are one clear line each; valid ones create the target."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from support_targets import SECRET, settings

from stream_scorer.errors import SettingsError
from stream_scorer.settings import load_settings
from stream_scorer.targets.contact_columns import DEFAULT_COLUMNS
from stream_scorer.targets.factory import build_target
from stream_scorer.targets.log_target import LogTarget
from stream_scorer.targets.signature import MIN_SECRET_BYTES
from stream_scorer.targets.webhook import MAX_ANSWER_BYTES, TIMEOUT_S, WebhookTarget

LOCAL = "http://127.0.0.1:8091/callbacks"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"secret": SECRET}, "callbacks.url is missing: set STREAM_SCORER_CALLBACKS__URL"),
        ({"url": LOCAL}, "callbacks.secret is missing: set STREAM_SCORER_CALLBACKS__SECRET or"),
        ({"url": "http://93.184.216.34/x", "secret": SECRET}, "callbacks.url must begin with https://"),
        ({"url": "https://169.254.169.254/latest", "secret": SECRET}, "callbacks.url: 169.254.169.254 is refused"),
        (
            {"url": "http://0xa9fea9fe/", "secret": SECRET, "allow_http": True},
            "its address 169.254.169.254 is link-loc",
        ),
        ({"url": "https://me:pass@example.com/", "secret": SECRET}, "callbacks.url must hold no user or password"),
        ({"url": LOCAL, "secret": b64encode(b"sixteen bytes 16").decode()}, "callbacks.secret is too short"),
        ({"url": LOCAL, "secret": "not base64 at all, is it?"}, "callbacks.secret must be base64"),
        ({"url": LOCAL, "secret": SECRET, "secret_previous": "c2hvcnQ="}, "callbacks.secret_previous is too short"),
    ],
)
def test_one_clear_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_target(settings(**given))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    for secret in ("me:pass", given.get("secret"), given.get("secret_previous")):
        assert secret is None or secret not in message


def test_the_webhook() -> None:
    made = build_target(settings(url=LOCAL, secret=SECRET, secret_previous=SECRET))
    assert isinstance(made, WebhookTarget)
    assert made.name == "webhook http://127.0.0.1:8091"
    assert made.max_body_bytes == 20_000
    made.close()


def test_the_log_needs_nothing() -> None:
    assert isinstance(build_target(settings(target="log")), LogTarget)


@pytest.mark.parametrize("url", [f"{LOCAL}/", f"{LOCAL}?to=a/", "https://example.com/"])
def test_a_slash_at_the_end_stays(url: str) -> None:
    """For many servers it is another resource, with a redirect between both."""
    assert load_settings(environ={"STREAM_SCORER_CALLBACKS__URL": url}).callbacks.url == url


def test_the_url_shows_in_no_error_and_no_repr() -> None:
    made = settings(url="https://example.com/hooks/path-s3cret", secret=SECRET)
    assert "s3cret" not in repr(made)
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={"STREAM_SCORER_CALLBACKS__URL": "ftp://example.com/path-s3cret"})
    assert "s3cret" not in str(caught.value)


def test_the_page_names_the_columns_of_the_contact_list() -> None:
    page = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    listed = page.split("The list needs these columns", 1)[1].split("\n\n", 1)[0]
    assert tuple(re.findall(r"`(\w+)`", listed)) == tuple(DEFAULT_COLUMNS)


def test_the_page_names_the_limits() -> None:
    page = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    assert f"answers within {TIMEOUT_S:g} s" in page.replace("\n", " ")
    assert f"{MAX_ANSWER_BYTES // 1024} kB are read" in page
    assert f"at least {MIN_SECRET_BYTES} bytes" in page
