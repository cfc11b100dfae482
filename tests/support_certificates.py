"""Certificate authority with its certificates, and a token server, for tests."""

from __future__ import annotations

import base64
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ISSUER = "https://login.test"
_KEY_ID = "test"
_DAY = timedelta(days=1)
# Python 3.13 verifies strictly: an authority states its use, and each certificate the key of its issuer.
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Authority:
    """``authority.pem`` and its key in a folder; what it issues stands beside them."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """A new, untrusted authority."""
        folder.mkdir(parents=True, exist_ok=True)
        authority = cls(folder)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("the authority of the tests")
        made = _certificate(name, key.public_key(), name).add_extension(x509.BasicConstraints(True, None), True)
        made = made.add_extension(_SIGNS_CERTIFICATES, True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        authority.file.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        authority._key_file.write_bytes(_private(key))
        return authority

    @property
    def file(self) -> Path:
        """Its certificate, for ``ssl.ca.location``."""
        return self.folder / "authority.pem"

    @property
    def _key_file(self) -> Path:
        return self.folder / "authority-key.pem"

    def issue(self, common_name: str, *, host: str | None = None, password: str | None = None) -> Path:
        """A key with its certificate in one file, ``<common name>.pem``; of a server where a host is given."""
        signer: Any = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        issuer = x509.load_pem_x509_certificate(self.file.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(_name(common_name), key.public_key(), issuer.subject)
        issuers_key: Any = issuer.public_key()
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuers_key), False)
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        certificate = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        file = self.folder / f"{common_name}.pem"
        file.write_bytes(_private(key, password) + certificate)
        return file


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _certificate(subject: x509.Name, public_key: Any, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )


def _private(key: Any, password: str | None = None) -> bytes:
    encryption: Any = (
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password.encode())
    )
    written: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return written


# --- tokens


def token_key(folder: Path) -> rsa.RSAPrivateKey:
    """The key that signs tokens; made where the folder has none."""
    file = folder / "token-key.pem"
    if not file.exists():
        file.write_bytes(_private(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    key: Any = serialization.load_pem_private_key(file.read_bytes(), None)
    return key


def write_jwks(file: Path, key: rsa.RSAPrivateKey) -> None:
    """The public half, as a broker reads it."""
    numbers = key.public_key().public_numbers()
    one = {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": _KEY_ID,
        "n": _integer(numbers.n),
        "e": _integer(numbers.e),
    }
    file.write_text(json.dumps({"keys": [one]}), encoding="utf-8")


def _integer(value: int) -> str:
    return _text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed_token(key: rsa.RSAPrivateKey, subject: str, audience: str, lifetime_s: int = 300) -> str:
    """A JWT."""
    now = int(time.time())
    claims = {"sub": subject, "aud": audience, "iat": now, "exp": now + lifetime_s, "iss": ISSUER, "scope": "kafka"}
    parts = [_text(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT", "kid": _KEY_ID}, claims)]
    signature = key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
    return ".".join([*parts, _text(signature)])


@contextmanager
def token_server(key: rsa.RSAPrivateKey, audience: str, *, secret: str) -> Iterator[str]:
    """The URL of a token endpoint: a client with the secret gets a token with its id as the subject."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            scheme, _, given = self.headers.get("Authorization", "").partition(" ")
            client_id, _, password = base64.b64decode(given or b"").decode().partition(":")
            good = scheme == "Basic" and password == secret
            token = {"access_token": signed_token(key, client_id, audience), "token_type": "Bearer", "expires_in": 300}
            # Like some gateways, it echoes the request.
            refusal = {"error": "invalid_client", "error_description": f"not {self.headers.get('Authorization')}"}
            body = json.dumps(token if good else refusal).encode()
            self.send_response(200 if good else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()
