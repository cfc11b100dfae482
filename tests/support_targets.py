"""Scores, callbacks and certificates for the tests of the targets."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.core.callbacks.types import Callback, Score
from stream_scorer.core.records import SourceRecord
from stream_scorer.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_scorer.callbacks.ports import Target

KEY = bytes(range(32))
SECRET = f"whsec_{b64encode(KEY).decode()}"
CALLBACK_ID = "6f1c8e2e-63c1-5c58-8f7a-5a1d2c3b4e5f"
PLANNED_AT_MS = 1_900_000_000_000
RECORD = SourceRecord("contact-scores", 0, 1, None, None, [])


def score(contact_id: str = "C-1", **fields: Any) -> Score:
    values: dict[str, Any] = {
        "record": RECORD,
        "event_id": f"event-{contact_id}",
        "contact_id": contact_id,
        "campaign_id": "spring",
        "model_id": "model-1",
        "model_version": "v1",
        "score": 0.875,
        "confidence_lower": 0.75,
        "confidence_upper": 1.0,
        "occurred_at_ms": 1_899_999_999_001,
        "scored_at_ms": 1_899_999_999_999,
    }
    return Score(**{**values, **fields})


def callback(
    target: Target, *contact_ids: str, callback_id: str = CALLBACK_ID, campaign_id: str | None = "spring"
) -> Callback:
    contact_ids = contact_ids or ("C-1",)
    entries = [target.entry(score(one, campaign_id=campaign_id)) for one in contact_ids]
    return Callback(
        callback_id=callback_id,
        campaign_id=campaign_id,
        target=target.name,
        body=target.body(callback_id, campaign_id, "model-1", PLANNED_AT_MS, entries),
        sources=tuple(f"contact-scores/0/{number}" for number in range(len(entries))),
        event_ids=tuple(f"event-{one}" for one in contact_ids),
        contact_ids=contact_ids,
        planned_at_ms=PLANNED_AT_MS,
        attempts=0,
        not_before_ms=PLANNED_AT_MS,
    )


def settings(**callbacks: Any) -> Settings:
    return Settings.model_validate({"callbacks": callbacks})


def resolves(**names: str | list[str]) -> Callable[..., list[Any]]:
    """A ``getaddrinfo`` that knows these names (``_`` for a dot), each with its addresses; others do not exist."""
    known = {name.replace("_", "."): [to] if isinstance(to, str) else to for name, to in names.items()}

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [_info(address, port) for address in known[host]]

    return resolve


def _info(address: str, port: int) -> Any:
    if ipaddress.ip_address(address).version == 4:
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
    return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))


def openssl(*arguments: str | Path) -> None:
    try:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no openssl to make a certificate with: {error}")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """An authority of one's own (first) and a certificate with its key for this name (second), both PEM."""
    authority, authority_key = folder / "authority.pem", folder / "authority-key.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    # Python 3.13 verifies strictly: an authority states its use, and each certificate the key of its issuer.
    use = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    own = (*curve, *use, "-days", "2", "-subj", "/CN=test")
    openssl("req", "-x509", *own, "-keyout", authority_key, "-out", authority)
    request, key, made, extra = (folder / f"{name}.{end}" for end in ("csr", "key", "pem", "ext"))
    openssl("req", "-new", *curve, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    extra.write_text(f"subjectAltName=DNS:{name}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
    sign = ("x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial")
    openssl(*sign, "-days", "2", "-extfile", extra, "-out", made)
    made.write_bytes(key.read_bytes() + made.read_bytes())
    return authority, made
