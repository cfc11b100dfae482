"""docker-compose.yml, the Dockerfile and the manifests against the program that they run."""

from __future__ import annotations

import http.server
import re
import socket
import subprocess
import sys
import threading
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from stream_scorer.cli import app
from stream_scorer.cli.lifecycle import CLOSING_S
from stream_scorer.settings import load_settings
from stream_scorer.settings.key_catalog import SECRETS, SECTIONS
from stream_scorer.settings.names import PREFIX, variable
from stream_scorer.telemetry import collectors
from stream_scorer.telemetry.otlp_env import METRICS, TRACES, chosen_exporters

REPOSITORY = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
VARIABLES = {variable((section, key)) for section, keys in SECTIONS.items() for key in keys}
VARIABLES |= {f"{variable(path)}_FILE" for path in SECRETS}
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")


def substituted(value: Any, environ: dict[str, str]) -> str:
    """Return a text with compose's substitution of ${NAME:-default}, ${NAME-default} and ${NAME:?message}."""

    def replace(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        given = environ.get(name)
        if operator == ":?":
            assert given, f"{name}: {rest}"
        return given if given is not None and (given or operator == "-") else (rest if operator != ":?" else "")

    return re.sub(r"\$\{(\w+)(:-|-|:\?)([^}]*)\}", replace, str(value))


def command_exists(words: list[str]) -> bool:
    root = typer.main.get_command(app)
    context = typer.Context(root, info_name="stream-scorer")
    _, command, rest = root.resolve_command(context, words)  # type: ignore[attr-defined]
    return not hasattr(command, "list_commands") or rest[0] in command.list_commands(context)


def test_an_end_leaves_time_for_collectors_that_hang() -> None:
    leaving_s = 3.0
    assert leaving_s + collectors.CLOSE_S < CLOSING_S
    said = re.search(r"terminationGracePeriodSeconds: (\d+) ", (REPOSITORY / "docs" / "operations.md").read_text())
    assert said is not None
    assert int(said[1]) > load_settings(environ={}).scoring.shutdown_timeout_s + CLOSING_S


# --- docker-compose.yml


def test_compose_fits_the_specification() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_locked_down_bounded_and_on_loopback_alone(name: str) -> None:
    service = SERVICES[name]
    image = substituted(service["image"], {})
    assert PINNED.fullmatch(image), image
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert "container_name" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service.get("read_only") or name == "kafka"  # its image writes its settings into its own folder
    for mounted in service.get("volumes", []):
        source = mounted.split(":")[0]
        assert source in COMPOSE["volumes"] or (REPOSITORY / source).exists(), source
    for other, wanted in service.get("depends_on", {}).items():
        healthy = "test" in SERVICES[other].get("healthcheck", {}) or wanted["condition"] != "service_healthy"
        assert healthy or SERVICES[other]["build"]["target"] == "worker", other


def test_ports_do_not_clash() -> None:
    taken = [port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(taken) == len(set(taken))


def test_compose_holds_no_secret_and_the_example_names_those_it_wants() -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?", (REPOSITORY / "docker-compose.yml").read_text()))
    example = (REPOSITORY / ".env.example").read_text()
    assert wanted == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))
    assert ".env" in (REPOSITORY / ".gitignore").read_text().splitlines()
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"SECRET|PASSWORD|TOKEN", name):
                assert re.match(r"\$\{\w+:\?", value), name


@pytest.mark.parametrize("name", OURS)
def test_our_services_run_commands_and_settings_that_exist(name: str) -> None:
    service = OURS[name]
    environment = service.get("environment", {})
    assert {key for key in environment if key.startswith(PREFIX)} <= VARIABLES
    text = " ".join(service["command"])
    lines = re.findall(r"stream-scorer ([\w ]+)", text) if "entrypoint" in service else [text]
    assert lines
    for line in lines:
        assert command_exists(line.split()), line


@pytest.mark.parametrize("name", ["scorer", "callbacks", "setup", "produce"])
def test_the_settings_of_a_service_are_good(name: str) -> None:
    given = {"GENESYS_CLIENT_SECRET": "s", "CALLBACKS_SECRET": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    environ = {key: substituted(value, given) for key, value in SERVICES[name].get("environment", {}).items()}
    settings = load_settings(environ=environ)
    assert settings.kafka.bootstrap_servers == "kafka:29092"
    assert settings.schema_registry.url is not None
    if name == "scorer":
        settings.require_api()
        assert settings.genesys.api_url == "http://simulator:8090"
        replicas = SERVICES[name]["deploy"]["replicas"]
        assert settings.genesys.requests_per_minute * replicas <= 300
        assert not load_settings(environ={**environ, variable(("genesys", "base_url")): ""}).genesys.base_url
    if name in {"scorer", "callbacks"}:
        grace_s = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > settings.scoring.shutdown_timeout_s + CLOSING_S


@pytest.mark.parametrize("name", [name for name, one in OURS.items() if "OTEL_SERVICE_NAME" in one["environment"]])
def test_the_collector_takes_what_a_service_sends(name: str) -> None:
    """A signal without a pipeline gets a 404 for each export."""
    collector = yaml.safe_load((REPOSITORY / "deploy" / "otel-collector.yaml").read_text())
    environ = {key: substituted(value, {}) for key, value in OURS[name]["environment"].items() if "SECRET" not in key}
    sent = {signal.name.lower() for signal in (TRACES, METRICS) if "otlp" in chosen_exporters(environ, signal)}
    assert sent == set(collector["service"]["pipelines"]) == {"traces"}


@pytest.mark.parametrize("place", ["deploy/kubernetes/overlays/example/kustomization.yaml", "docs/tracing.md"])
def test_the_examples_send_traces_alone_to_the_collector(place: str) -> None:
    found = re.findall(r"(?:export |[ ]|name: )(OTEL_\w+)(?:=|, value: )([^\s}]+)", (REPOSITORY / place).read_text())
    environ = {name: value.strip('"') for name, value in found}
    assert chosen_exporters(environ, TRACES) == {"otlp"}
    assert chosen_exporters(environ, METRICS) == {"prometheus"}


def test_replicas_have_no_instance_id_in_common() -> None:
    for name, service in OURS.items():
        assert variable(("kafka", "instance_id")) not in service.get("environment", {}), name


def test_the_health_check_of_kafka_starts_no_jvm() -> None:
    check = SERVICES["kafka"]["healthcheck"]
    assert check["test"] == ["CMD", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/29092"]
    assert check["interval"] == "30s"
    command = check["test"][1:]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        command[-1] = command[-1].replace("29092", port)
        assert subprocess.run(command, timeout=30, check=False).returncode == 0
    closed = subprocess.run(command, stderr=subprocess.DEVNULL, timeout=30, check=False)
    assert closed.returncode != 0
    assert "INSIDE://:29092" in SERVICES["kafka"]["environment"]["KAFKA_LISTENERS"]


def test_grafana_fetches_nothing() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert {value for name, value in environment.items() if name.startswith("GF_ANALYTICS_")} == {"false"}


# --- the Dockerfile


def test_what_the_dockerfile_copies_passes_the_ignore_file() -> None:
    rules = (REPOSITORY / ".dockerignore").read_text().split()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert "deploy/healthy.py" in sources
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        parts = source.split("/")
        ignored = False
        for rule in rules:
            if any(fnmatch("/".join(parts[:depth]), rule.lstrip("!")) for depth in range(1, len(parts) + 1)):
                ignored = not rule.startswith("!")
        assert not ignored, source


def test_the_images_are_pinned_not_root_and_what_compose_builds() -> None:
    stages = re.findall(r"^FROM (\S+) AS ([\w-]+)", DOCKERFILE, re.MULTILINE)
    assert len(stages) == DOCKERFILE.count("\nFROM ")
    names = [name for _, name in stages]
    assert all(image in names or PINNED.fullmatch(image) for image, _ in stages)
    assert names[-1] == "worker"
    assert {service["build"]["target"] for service in OURS.values()} <= set(names)
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE) == ['["tini", "-s", "--", "stream-scorer"]']
    assert all(service["init"] is True for service in OURS.values())
    for service in OURS.values():
        assert (service["build"]["target"] == "local") == (service["command"][0] in {"simulate", "receive"})


def test_the_image_has_oci_labels_and_no_pip_of_the_base() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', DOCKERFILE))
    assert (labels["title"], labels["version"]) == (project["name"], project["version"])
    assert (labels["description"], labels["licenses"]) == (project["description"], project["license"])
    [base] = {image for image in re.findall(r"^FROM (\S+) AS", DOCKERFILE, re.MULTILINE) if ":" in image}
    assert labels["base.name"] == f"docker.io/library/{base}"
    assert not DOCKERFILE.startswith("# syntax="), "BuildKit would fetch its frontend from a registry"
    final = DOCKERFILE.partition(" AS base")[2]
    python = re.match(r"python:(\d+\.\d+)", base)
    assert python is not None
    assert "pip uninstall --yes" in final
    assert f"rm -rf /usr/local/lib/python{python[1]}/ensurepip" in final
    locked = (REPOSITORY / "requirements" / "build.txt").read_text()
    assert DOCKERFILE.count("cyclonedx_py environment") == 2, "each image lists its own packages"
    assert "\ncyclonedx-bom==" in locked


def test_the_health_check_asks_the_workers_port() -> None:
    said = {"/readyz": (200, b"ok\n")}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = said[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    def check(*arguments: str, **environ: str) -> tuple[int, str]:
        command = [sys.executable, "-S", str(REPOSITORY / "deploy" / "healthy.py"), *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stdout.strip()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_address[1])
        assert check(port) == (0, "ok")
        said["/readyz"] = (503, b"circuit open: HTTP 503\n")
        assert check(STREAM_SCORER_ADMIN__PORT=port) == (1, "circuit open: HTTP 503")
        server.shutdown()
    code, text = check(port)
    assert code == 1
    assert f"no answer at port {port}" in text
    assert check(STREAM_SCORER_ADMIN__PORT="0") == (0, "the admin port is off"), "otherwise it would stay unhealthy"
    assert check(STREAM_SCORER_ADMIN__PORT="off") == (1, "off is no port")


# --- Kubernetes


def manifests() -> list[dict[str, Any]]:
    files = sorted(KUBERNETES.glob("base/*.yaml")) + sorted(KUBERNETES.glob("components/*/*.yaml"))
    found = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return [document for document in found if document["kind"] not in {"Kustomization", "Component"}]


MANIFESTS = manifests()
WORKERS = [document for document in MANIFESTS if document["kind"] == "StatefulSet"]


def check_manifest(document: dict[str, Any]) -> None:
    # Its import takes seconds, and every process of a test run imports this module.
    from kubernetes_validate import validate  # noqa: PLC0415

    validate(document, "1.33", strict=True)


@pytest.mark.parametrize(
    "document", MANIFESTS, ids=lambda document: f"{document['kind']}-{document['metadata']['name']}"
)
def test_a_manifest_is_one(document: dict[str, Any]) -> None:
    if document["kind"] == "ScaledObject":
        target = document["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("StatefulSet", "stream-scorer")
        trigger = document["spec"]["triggers"][0]["metadata"]
        settings = load_settings(KUBERNETES / "base" / "scorer.toml", environ={})
        assert trigger["consumerGroup"] == settings.kafka.group_id
        assert trigger["topic"] == settings.topics.features
        return
    if document["apiVersion"].startswith("monitoring.coreos.com/"):
        return  # compared with pods and rules in test_dashboards.py
    check_manifest(document)


def test_kustomizations_name_files_that_exist() -> None:
    for file in KUBERNETES.rglob("kustomization.yaml"):
        content = yaml.safe_load(file.read_text())
        named = [*content.get("resources", []), *content.get("components", [])]
        named += [name for one in content.get("configMapGenerator", []) for name in one["files"]]
        if "namespace.yaml" in named:
            namespace = yaml.safe_load((file.parent / "namespace.yaml").read_text())
            check_manifest(namespace)
            assert namespace["metadata"]["name"] == content["namespace"]
        assert named
        for name in named:
            assert (file.parent / name).exists(), f"{file}: {name}"


@pytest.mark.parametrize("worker", WORKERS, ids=lambda worker: worker["metadata"]["name"])
def test_a_worker_in_kubernetes(worker: dict[str, Any], tmp_path: Path) -> None:
    pod = worker["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert command_exists(container["args"][:1])
    environ = {one["name"]: one.get("value", "pod-0") for one in container["env"]}
    assert set(environ) <= VARIABLES
    secret = tmp_path / "secret"
    secret.write_text("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    environ = {name: str(secret) if name.endswith("_FILE") else value for name, value in environ.items()}
    for settings_file in sorted(KUBERNETES.rglob("scorer.toml")):
        settings = load_settings(settings_file, environ=environ)
        assert settings.kafka.instance_id == "pod-0"
        assert settings.admin.host == "0.0.0.0"  # noqa: S104 - inside the pod
        own = settings.admin.port if container["args"][0] == "run" else settings.callbacks.admin_port
        assert [port["containerPort"] for port in container["ports"]] == [own]
        assert pod["terminationGracePeriodSeconds"] > settings.scoring.shutdown_timeout_s + CLOSING_S
    assert {container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness")} == {"/livez"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"USER {pod['securityContext']['runAsUser']}:" in DOCKERFILE
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(container["args"][2]).parent) in mounts


def test_the_reconciliation_in_kubernetes() -> None:
    [job] = [document for document in MANIFESTS if document["kind"] == "CronJob"]
    spec = job["spec"]["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert command_exists(container["args"][:1])
    assert (job["spec"]["concurrencyPolicy"], spec["backoffLimit"], pod["restartPolicy"]) == ("Forbid", 0, "Never")
    for worker in WORKERS:
        theirs = worker["spec"]["template"]["spec"]
        assert pod["securityContext"] == theirs["securityContext"]
        assert container["securityContext"] == theirs["containers"][0]["securityContext"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(container["args"][2]).parent) in mounts
