"""No contact's id comes out of the API's own words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support_core import answered, contact, refused, server_error

from stream_scorer.core.batcher import BatchKey
from stream_scorer.core.request import Request
from stream_scorer.core.unnaming import unnamed
from stream_scorer.scoring.pool import RequestPool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.events import Answer


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("HTTP 400 bad.value: entity c-1 has no score", "HTTP 400 bad.value: entity *** has no score"),
        ("HTTP 500: 'c-1', c-1; and (c-1)", "HTTP 500: '***', ***; and (***)"),
        ("HTTP 500: c-10 and xc-1 are others", "HTTP 500: c-10 and xc-1 are others"),
        ("HTTP 503: contact 503 failed", "HTTP 503: contact *** failed"),
        ("HTTP 500: a.b*", "HTTP 500: ***"),
        ("no connection to api", "no connection to api"),
    ],
)
def test_ids_that_are_words_of_their_own_are_hidden(said: str, left: str) -> None:
    answer = replace(server_error(503), message=said)
    assert unnamed(answer, ["c-1", "503", "a.b*"]) == replace(answer, message=left)


def test_what_names_nobody_stays_as_it_is() -> None:
    for answer in (answered(["c-1"]), refused(), server_error(503)):
        assert unnamed(answer, ["c-1"]) is answer


def test_the_pool_hands_no_id_on() -> None:
    class Api:
        def ask(self, _parts: Sequence[bytes], _model_version: str | None) -> Answer:
            return replace(server_error(503), message="HTTP 503: c-1 broke me")

    pool = RequestPool(Api(), 1)
    pool.submit(Request("batch", BatchKey(None, version_from_event=False), (contact("c-1"), contact("c-2"))))
    [(_, answer)] = pool.answers(10.0)
    pool.close()
    assert not isinstance(answer, type(answered([])))
    assert answer.message == "HTTP 503: *** broke me"
