"""Toxiproxy, built from its Go module into the cache folder: `Link`s in a separate process.

Without Go, the slower proxy of `tcp_proxy.py` does the same; `open_links` chooses between the two.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import requests
from scoring_harness import wait_until
from tcp_proxy import TcpProxy

from stream_scorer.local.kafka.config import default_cache_dir
from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tcp_proxy import Link

_VERSION: Final = "2.12.0"
_MODULE: Final = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{_VERSION}"
_BUILD_S: Final = 600.0
_CALL_S: Final = 10.0


@contextmanager
def open_links() -> Iterator[tuple[str, Callable[[int], Link]]]:
    """Yield the kind of the links as text and the function that creates one to a local port."""
    binary = toxiproxy_binary()
    if binary is None:
        made: list[TcpProxy] = []

        def make(port: int) -> Link:
            made.append(TcpProxy(port))
            return made[-1]

        try:
            yield "the proxy of tests/chaos/tcp_proxy.py (no Go here to build Toxiproxy)", make
        finally:
            for proxy in made:
                proxy.close()
    else:
        with Toxiproxy(binary) as toxiproxy:
            yield f"Toxiproxy {_VERSION}", toxiproxy.link


def toxiproxy_binary() -> Path | None:
    """Return the server binary, built once; None where that is impossible."""
    folder = default_cache_dir() / f"toxiproxy-{_VERSION}"
    binary = folder / "server"
    if not binary.exists():
        go = shutil.which("go")
        if go is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
        built = subprocess.run(
            [go, "install", _MODULE], cwd=folder, env=environment, timeout=_BUILD_S, check=False, capture_output=True
        )
        if built.returncode != 0:
            return None
    return binary


class Toxiproxy:
    """The server's process. A context manager."""

    def __init__(self, binary: Path) -> None:
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        self._session = requests.Session()
        self._session.trust_env = False
        self._process = subprocess.Popen(
            [str(binary), "-host", "127.0.0.1", "-port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LOG_LEVEL": "error"},
            start_new_session=True,
        )
        wait_until(self._answers, "Toxiproxy to answer")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(_CALL_S)

    def link(self, upstream_port: int) -> Link:
        """Create a link to a local port."""
        return ToxicLink(self, upstream_port)

    def call(self, method: str, path: str, content: Any = None) -> None:
        """Call its API; deleting an absent resource is no error."""
        answer = self._session.request(method, self._url + path, json=content, timeout=_CALL_S)
        if not (answer.ok or (method == "DELETE" and answer.status_code == requests.codes.not_found)):
            raise AssertionError(f"Toxiproxy: {method} {path}: {answer.status_code} {answer.text}")

    def _answers(self) -> bool:
        try:
            return self._session.get(f"{self._url}/version", timeout=1).ok
        except requests.RequestException:
            return False


class ToxicLink:
    """A `Link` of Toxiproxy."""

    def __init__(self, server: Toxiproxy, upstream_port: int) -> None:
        self._server = server
        self.port = free_port()
        self._path = f"/proxies/link-{self.port}"
        self._toxics: list[str] = []
        content = {"name": f"link-{self.port}", "listen": f"127.0.0.1:{self.port}"}
        server.call("POST", "/proxies", {**content, "upstream": f"127.0.0.1:{upstream_port}", "enabled": True})

    def latency(self, milliseconds: int) -> None:
        self._poison("latency", {"latency": milliseconds, "jitter": milliseconds // 4})

    def bandwidth(self, kilobytes_per_s: int) -> None:
        self._poison("bandwidth", {"rate": kilobytes_per_s})

    def half_open(self) -> None:
        self._poison("timeout", {"timeout": 0})

    def reset(self) -> None:
        self._poison("reset_peer", {"timeout": 0})
        self.heal()

    def cut(self) -> None:
        self.heal()
        self._server.call("POST", self._path, {"enabled": False})

    def heal(self) -> None:
        for toxic in self._toxics:
            self._server.call("DELETE", f"{self._path}/toxics/{toxic}")
        self._toxics = []
        self._server.call("POST", self._path, {"enabled": True})

    def close(self) -> None:
        self._server.call("DELETE", self._path)

    def _poison(self, kind: str, attributes: dict[str, int]) -> None:
        self.heal()
        for stream in ("upstream", "downstream"):
            self._toxics.append(f"{kind}-{stream}")
            content = {"name": self._toxics[-1], "type": kind, "stream": stream, "attributes": attributes}
            self._server.call("POST", f"{self._path}/toxics", content)
