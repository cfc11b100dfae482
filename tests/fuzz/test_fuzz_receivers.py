"""A campaign manager's answers, and the platform's to contacts for a contact list: always a `DeliveryAnswer`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from support_fuzz import fuzz, is_one_line
from support_fuzz_http import TOKEN, answers
from support_targets import SECRET, callback

from stream_scorer.core.callbacks.retry_policy import (
    Completed,
    DeferredDelivery,
    Delivery,
    DeliveryRules,
    RetryNow,
    after_attempt,
)
from stream_scorer.core.callbacks.types import DeliveryAnswer, DeliveryKind
from stream_scorer.core.records import SourceRecord
from stream_scorer.genesys.oauth import TokenSource
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.http_client.client import Http
from stream_scorer.targets.genesys_outbound import OutboundTarget
from stream_scorer.targets.signature import Signer
from stream_scorer.targets.ssrf_guard import Guard
from stream_scorer.targets.webhook import WebhookTarget

if TYPE_CHECKING:
    from collections.abc import Callable

    from support_fuzz_http import HttpHarness

    from stream_scorer.callbacks.ports import Target

CLIENT_SECRET = "s3cr3t-of-the-fuzz"
RULES = DeliveryRules((60.0, 600.0))
RECORD = SourceRecord("campaign-callbacks", 0, 3, None, b"value", [])


def webhook(url: str) -> Target:
    return WebhookTarget(f"{url}/hooks/s3cr3t-of-the-path", Signer(SECRET), Guard(lambda _: None), timeout_s=5.0)


def outbound(url: str) -> Target:
    http = Http()
    tokens = TokenSource(http, url, "id", CLIENT_SECRET, timeout_s=5.0)
    return OutboundTarget(http, tokens, Quota(1_000_000), url, "list-1", timeout_s=5.0)


@fuzz(60)
@given(st.sampled_from([webhook, outbound]), answers(), st.booleans(), st.integers(0, 5))
def test_any_answer(harness: HttpHarness, make: Callable[[str], Target], said: bytes, login: bool, tries: int) -> None:
    harness.said, harness.granted = said, said if login else None
    target = make(harness.server.url)
    one = callback(target)
    try:
        answer = target.deliver(one)
    finally:
        target.close()
    assert isinstance(answer, DeliveryAnswer)
    assert answer.kind in DeliveryKind
    assert is_one_line(answer.message)
    assert 0 < len(answer.message) < 1_000
    for secret in (CLIENT_SECRET, SECRET, "s3cr3t-of-the-path", *(() if login else (TOKEN,))):
        assert secret not in repr(answer)
    after_s = answer.retry_after_s
    assert after_s is None or (0 <= after_s <= 86_400 and math.isfinite(after_s))
    delivery = Delivery(RECORD, one, attempts_in_round=tries)
    follows = after_attempt(delivery, answer, RULES, now=10.0, now_ms=10_000, jitter=0.5)
    assert isinstance(follows, Completed | DeferredDelivery | RetryNow)
