"""Signatures: `standardwebhooks` verifies them and rejects modified callbacks."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from support_targets import CALLBACK_ID, KEY, SECRET

from stream_scorer.errors import SettingsError
from stream_scorer.targets.signature import Signer, secret_bytes

OTHER = f"whsec_{b64encode(bytes(range(1, 33))).decode()}"
BODY = '{"type":"contact.scored","data":{"campaign_id":"Frühling"}}'.encode()


def now() -> datetime:
    return datetime.now(UTC)


def verify(secret: str, headers: dict[str, str], body: bytes = BODY) -> None:
    Webhook(secret).verify(body, headers)


def test_the_verifier_takes_it() -> None:
    headers = Signer(SECRET).headers(CALLBACK_ID, BODY, now())
    verify(SECRET, headers)
    assert headers["webhook-id"] == CALLBACK_ID
    assert headers["webhook-signature"].startswith("v1,")


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])
def test_the_zone_of_the_clock_does_not_matter(zone: timezone) -> None:
    at = now()
    assert Signer(SECRET).headers(CALLBACK_ID, BODY, at.astimezone(zone)) == Signer(SECRET).headers(
        CALLBACK_ID, BODY, at
    )
    verify(SECRET, Signer(SECRET).headers(CALLBACK_ID, BODY, at.astimezone(zone)))


def test_a_known_signature() -> None:
    # Made with `openssl dgst -sha256 -mac HMAC -macopt hexkey:… -binary | base64` from "<id>.<timestamp>.<body>".
    headers = Signer(SECRET).headers("msg_1", b"{}", datetime.fromtimestamp(1_700_000_000.75, UTC))
    assert headers == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1,fhksJF5ElKjlPoT/jtefCO5XjQPvhf7Dhf/8R1ad9yU=",
    }


def test_a_changed_byte_is_refused() -> None:
    headers = Signer(SECRET).headers(CALLBACK_ID, BODY, now())
    for changed in (BODY[:-1] + b" ", BODY + b" ", BODY.replace(b"scored", b"scorer")):
        with pytest.raises(WebhookVerificationError):
            verify(SECRET, headers, changed)


def test_another_id_is_refused() -> None:
    headers = Signer(SECRET).headers(CALLBACK_ID, BODY, now())
    with pytest.raises(WebhookVerificationError):
        verify(SECRET, headers | {"webhook-id": "another"})


@pytest.mark.parametrize(("minutes", "words"), [(-6, "too old"), (6, "too new")])
def test_an_old_timestamp_is_refused(minutes: int, words: str) -> None:
    headers = Signer(SECRET).headers(CALLBACK_ID, BODY, now() + timedelta(minutes=minutes))
    with pytest.raises(WebhookVerificationError, match=words):
        verify(SECRET, headers)


def test_a_wrong_secret_is_refused() -> None:
    headers = Signer(SECRET).headers(CALLBACK_ID, BODY, now())
    with pytest.raises(WebhookVerificationError):
        verify(OTHER, headers)


def test_while_the_secret_changes_both_are_good() -> None:
    headers = Signer(SECRET, OTHER).headers(CALLBACK_ID, BODY, now())
    verify(SECRET, headers)
    verify(OTHER, headers)
    assert len(headers["webhook-signature"].split(" ")) == 2


def test_one_secret_given_twice_signs_once() -> None:
    assert " " not in Signer(SECRET, SECRET).headers(CALLBACK_ID, BODY, now())["webhook-signature"]


@pytest.mark.parametrize("size", [24, 25, 26, 32, 64])
@pytest.mark.parametrize("prefix", ["whsec_", ""])
@pytest.mark.parametrize("padded", [True, False])
def test_a_secret_may_have_its_prefix_and_padding_or_not(size: int, prefix: str, *, padded: bool) -> None:
    key = bytes(size)
    text = b64encode(key).decode()
    secret = prefix + (text if padded else text.rstrip("="))
    assert secret_bytes("x", secret) == key
    verify(secret, Signer(secret).headers(CALLBACK_ID, BODY, now()))


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (b64encode(bytes(23)).decode(), "too short: it holds 23 bytes and needs 24"),
        ("whsec_", "too short"),
        ("whsec_whsec_" + b64encode(KEY).decode(), "base64"),
        ("correct horse battery staple, or so", "base64"),
        (urlsafe_b64encode(b"\xff" * 30).decode(), "base64"),
        ("ключ" * 20, "base64"),
        (SECRET + "\n", "base64"),
    ],
)
def test_a_bad_secret_is_named_and_not_shown(secret: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        Signer(secret)
    with pytest.raises(SettingsError, match=r"callbacks\.secret_previous"):
        Signer(SECRET, secret)
    message = str(caught.value)
    assert message.startswith("callbacks.secret ")
    assert "\n" not in message
    assert len(secret) < 10 or secret not in message


def test_secrets_do_not_show() -> None:
    signer = Signer(SECRET, OTHER)
    shown = repr(signer) + str(vars(signer))
    for secret in (SECRET, OTHER, repr(KEY)):
        assert secret.removeprefix("whsec_") not in shown
