"""A real receiver of OTLP over HTTP: what arrives is decoded with the standard's own messages."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as it arrived. Ids are hexadecimal; a root has an empty ``parent``."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    links: frozenset[str]
    attributes: dict[str, Any]
    failed: bool


class OtlpReceiver:
    """OTLP receiver on a port of its own that keeps all spans, metric names, and every byte. A context manager."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.metrics: set[tuple[str, str]] = set()
        self.bytes = b""
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, path: str, body: bytes) -> None:
        with self._lock:
            self.bytes += body
            if path == "/v1/traces":
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    service = _values(resource.resource.attributes)["service.name"]
                    self.spans += [_span(service, one) for scope in resource.scope_spans for one in scope.spans]

            elif path == "/v1/metrics":
                request = ExportMetricsServiceRequest.FromString(body)
                for source in request.resource_metrics:
                    service = _values(source.resource.attributes)["service.name"]
                    self.metrics |= {(service, one.name) for scope in source.scope_metrics for one in scope.metrics}

    def of_trace(self, trace: str) -> list[ReceivedSpan]:
        with self._lock:
            return [span for span in self.spans if span.trace == trace]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _span(service: str, one: Any) -> ReceivedSpan:
    return ReceivedSpan(
        service,
        one.name,
        one.trace_id.hex(),
        one.span_id.hex(),
        one.parent_span_id.hex(),
        frozenset(link.span_id.hex() for link in one.links),
        _values(one.attributes),
        one.status.code == one.status.STATUS_CODE_ERROR,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
