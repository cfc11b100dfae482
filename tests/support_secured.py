"""Users of the secured Kafka, with exactly the rights that a test gives them, and programs that run as them."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stubs do not list its own public names
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from scoring_harness import wait_until
from worker_harness import QUICK_PROPERTIES, QUICK_SETTINGS, ROOT, WorkerProcess, free_port, os

from stream_scorer.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from secured_fixture import SecuredKafka

    from stream_scorer.kafka.admin.acls import Permission

KINDS = (
    *("features", "scores", "review", "rejected", "audit", "decisions"),
    *("callbacks", "callbacks_rejected", "receipts"),
)
_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}


@dataclass(frozen=True, slots=True)
class Ended:
    """The output of a command that has exited."""

    code: int
    out: str
    errors: str

    @property
    def line(self) -> str:
        """Its only line for the user."""
        lines = [line for line in self.errors.splitlines() if not line.startswith("{")]
        assert len(lines) == 1, self.errors
        return lines[0]


class Ground:
    """Topics and groups of one test on the secured Kafka."""

    def __init__(self, secured: SecuredKafka, folder: Path) -> None:
        self.secured = secured
        self.folder = folder
        self.name = uuid.uuid4().hex[:8]
        self.group_id = f"group-{self.name}"
        self.workers: list[WorkerProcess] = []
        self._root = AdminClient({"bootstrap.servers": secured.open_servers, "log_level": 0})
        self.environment = {
            **QUICK_SETTINGS,
            "STREAM_SCORER_KAFKA__GROUP_ID": self.group_id,
            "STREAM_SCORER_KAFKA__INSTANCE_ID": "one",
            "STREAM_SCORER_CALLBACKS__TARGET": "log",
            "STREAM_SCORER_CALLBACKS__LINGER_MS": "50",
            "STREAM_SCORER_CALLBACKS__RETRY_DELAYS_S": "[60]",
            "STREAM_SCORER_TOPICS__CALLBACKS_RETRY": f"retry-{self.name}",
            **{f"STREAM_SCORER_TOPICS__{kind.upper()}": f"{kind}-{self.name}" for kind in KINDS},
        }

    # --- users

    def scram(self, *names: str) -> None:
        """Create users whose password is ``password of NAME``."""
        kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        made = [UserScramCredentialUpsertion(name, kind, f"password of {name}".encode()) for name in names]
        for future in self._root.alter_user_scram_credentials(made).values():
            future.result(30)

    def as_scram(self, name: str, **changes: Any) -> dict[str, str]:
        """The settings of this SCRAM user."""
        properties = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": name,
            "sasl.password": f"password of {name}",
        }
        return self.connected("SCRAM", properties | changes)

    def as_certificate(self, name: str, password: str | None = None) -> dict[str, str]:
        """The settings of a client with this certificate."""
        pem = str(self.secured.authority.issue(name, password=password))
        properties = {"security.protocol": "SSL", "ssl.certificate.location": pem, "ssl.key.location": pem}
        return self.connected("CERTIFICATE", properties | ({} if password is None else {"ssl.key.password": password}))

    def as_token(self, name: str, url: str, secret: str) -> dict[str, str]:
        """The settings of a client that gets tokens with this name."""
        properties = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": url,
            "sasl.oauthbearer.client.id": name,
            "sasl.oauthbearer.client.secret": secret,
        }
        return self.connected("TOKEN", properties)

    def connected(self, listener: str, properties: Mapping[str, Any], host: str = "localhost") -> dict[str, str]:
        known = {"ssl.ca.location": str(self.secured.authority.file), **properties}
        return {
            **self.environment,
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": self.secured.servers(listener, host),
            "STREAM_SCORER_KAFKA__PROPERTIES": json.dumps({**QUICK_PROPERTIES, **known}),
        }

    def as_root(self) -> dict[str, str]:
        """The settings of the superuser."""
        return {**self.environment, "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": self.secured.open_servers}

    # --- rights

    def grant(self, rights: Mapping[str, Iterable[Permission]]) -> None:
        """Grant rights to principals and wait until they are in effect."""
        bindings = [_binding(principal, right) for principal, some in rights.items() for right in some]
        for future in self._root.create_acls(bindings).values():
            future.result(30)
        for principal, some in rights.items():
            self._await(principal, {_place(_binding(principal, right)) for right in some})

    def _await(self, principal: str, places: set[Any]) -> None:
        wait_until(
            lambda: places <= {_place(one) for one in self._held(principal)}, lambda: f"the rights of {principal}"
        )

    def take(self, principal: str, right: Permission) -> None:
        """Revoke a right."""
        one = _binding(principal, right)
        fields = (one.restype, one.name, one.resource_pattern_type, one.principal, one.host)
        for future in self._root.delete_acls([AclBindingFilter(*fields, one.operation, one.permission_type)]).values():
            assert len(future.result(30)) == 1

    def _held(self, principal: str) -> list[Any]:
        everything = (ResourceType.ANY, None, ResourcePatternType.ANY, principal, None)
        wanted = AclBindingFilter(*everything, AclOperation.ANY, AclPermissionType.ANY)
        held: list[Any] = self._root.describe_acls(wanted).result(30)
        return held

    # --- programs

    def settings(self, environment: Mapping[str, str]) -> Settings:
        """Return the environment of the programs."""
        return load_settings(environ=environment)

    def command(self, environment: Mapping[str, str], *arguments: str, limit_s: float = 60) -> Ended:
        """Run a command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "stream_scorer", *arguments],
            env={**_outer(), **environment},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, environment: Mapping[str, str], command: str) -> WorkerProcess:
        """Start a worker."""
        port = free_port()
        ports = {"STREAM_SCORER_ADMIN__PORT": str(port), "STREAM_SCORER_CALLBACKS__ADMIN_PORT": str(port)}
        log_file = self.folder / f"{command}-{len(self.workers)}.log"
        self.workers.append(WorkerProcess({**environment, **ports}, [], log_file, port, command=command))
        return self.workers[-1]

    def kill_all(self) -> None:
        for worker in self.workers:
            if worker.running:
                worker.kill()


def _outer() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_", "OTEL_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def _place(binding: Any) -> Any:
    return binding.restype, binding.name, binding.operation


def _binding(principal: str, right: Permission) -> Any:
    operation = getattr(AclOperation, right.operation.upper())
    pattern = ResourcePatternType.PREFIXED if right.name.endswith("*") else ResourcePatternType.LITERAL
    place = (_RESOURCES[right.resource], right.name.removesuffix("*"), pattern)
    return AclBinding(*place, principal, "*", operation, AclPermissionType.ALLOW)
