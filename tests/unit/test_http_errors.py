"""Translation of every error of requests; a new one needs an entry."""

from __future__ import annotations

import http.client
import ssl

import pytest
import requests
import urllib3.exceptions

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.http_client.deadline import Deadline
from stream_scorer.http_client.errors import TRANSLATIONS, classify

REQUESTS_ERRORS = [
    one
    for one in vars(requests.exceptions).values()
    if isinstance(one, type) and issubclass(one, requests.RequestException) and one is not requests.RequestException
]


def deadline(cut_for: str | None = None, *, connected: bool = True) -> Deadline:
    made = Deadline(0.0)
    made.connected = connected
    if cut_for is not None:
        made.cut(cut_for)
    return made


@pytest.mark.parametrize("known", REQUESTS_ERRORS, ids=lambda one: one.__name__)
def test_every_error_of_requests_is_in_the_table(known: type[Exception]) -> None:
    assert known in [one for one, _, _ in TRANSLATIONS]


@pytest.mark.parametrize("known", [one for one, _, _ in TRANSLATIONS], ids=lambda one: one.__name__)
def test_no_entry_is_hidden_by_an_earlier_one(known: type[Exception]) -> None:
    first = next(one for one, _, _ in TRANSLATIONS if issubclass(known, one))
    assert first is known


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (requests.ConnectTimeout(), HttpFailure.NO_CONNECTION, "no connection"),
        (requests.ReadTimeout(), HttpFailure.TIMEOUT, "no complete answer"),
        (
            requests.ConnectionError(ConnectionRefusedError(111, "Connection refused")),
            HttpFailure.NO_CONNECTION,
            "refused",
        ),
        (
            requests.ConnectionError(urllib3.exceptions.ReadTimeoutError(None, "/", "late")),  # as in a body
            HttpFailure.TIMEOUT,
            "no complete answer",
        ),
        (
            requests.ConnectionError(
                urllib3.exceptions.ProtocolError("Connection aborted.", http.client.BadStatusLine("SSH-2.0"))
            ),
            HttpFailure.MALFORMED,
            "HTTP",
        ),
        (
            requests.ConnectionError(
                urllib3.exceptions.ProtocolError("aborted", http.client.RemoteDisconnected("closed"))
            ),
            HttpFailure.NO_CONNECTION,
            "closed without an answer",
        ),
        (requests.exceptions.SSLError(ssl.SSLError(1, "wrong version number")), HttpFailure.NO_CONNECTION, "TLS"),
        (http.client.IncompleteRead(b""), HttpFailure.MALFORMED, "HTTP"),
        (BrokenPipeError(32, "Broken pipe"), HttpFailure.NO_CONNECTION, "Broken pipe"),
    ],
)
def test_translation(error: Exception, kind: HttpFailure, words: str) -> None:
    got, message = classify(error, deadline(), "host:1", 3.0)
    assert got is kind
    assert words in message
    assert "host:1" in message


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        UnicodeError("x"),
        requests.exceptions.InvalidHeader("x"),
        requests.exceptions.InvalidURL("x"),
    ],
    ids=repr,
)
def test_the_same_error_is_ours_before_the_connection_stands_and_the_answers_after(error: Exception) -> None:
    kind, message = classify(error, deadline(connected=False), "host:1", 3.0)
    assert kind is HttpFailure.NO_CONNECTION
    assert "check its URL (genesys.base_url" in message
    kind, message = classify(error, deadline(connected=True), "host:1", 3.0)
    assert kind is HttpFailure.MALFORMED
    assert "the answer of host:1 cannot be read" in message


def test_words_of_foreign_errors_are_not_passed_on() -> None:
    error = requests.ConnectionError("https://user:hunter2@proxy/ Authorization: Bearer abc")
    assert "hunter2" not in classify(error, deadline(), "host", 3.0)[1]


@pytest.mark.parametrize(
    ("cut_for", "connected", "kind"),
    [
        ("deadline", True, HttpFailure.TIMEOUT),
        ("deadline", False, HttpFailure.NO_CONNECTION),
        ("closed", True, HttpFailure.NO_CONNECTION),
    ],
)
def test_a_deadline_takes_precedence_over_the_error_it_caused(cut_for: str, connected: bool, kind: HttpFailure) -> None:
    error = requests.ConnectionError(ConnectionResetError(104, "Connection reset by peer"))
    got, message = classify(error, deadline(cut_for, connected=connected), "host", 3.0)
    assert got is kind
    assert "reset" not in message
