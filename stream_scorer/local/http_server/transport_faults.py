"""Faults of an answer's transport: whole, or spoiled as by a network or a gateway.

Endless answers end with their client. An unfinished answer is incomplete JSON: its last byte is held back, so that no
reader can take the beginning for the whole.
"""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING, Any, Final
from zlib import DEFLATED, MAX_WBITS, Z_FULL_FLUSH, compressobj, crc32

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from stream_scorer.local.http_server.models import Transfer

DRIP_EVERY_S: Final = 0.1
BOMB_BYTES: Final = 200_000_000
_CHUNK: Final = b" " * 1_000_000
_GZIP_HEADER: Final = bytes((0x1F, 0x8B, DEFLATED, 0, 0, 0, 0, 0, 0, 0xFF))
_UINT32: Final = 1 << 32


class FaultyTransport:
    """Connection of one request, after the request has been read."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send

    async def send(self, status: int, headers: dict[bytes, bytes], body: bytes, transfer: Transfer | None) -> None:
        """Send an answer; ``headers`` lacks those for the body's length and encoding."""
        match transfer:
            case None:
                await self._whole(status, headers, body)
            case "gzip":
                await self._whole(status, headers | {b"content-encoding": b"gzip"}, gzip.compress(body))
            case "cut" | "cut_chunked":
                await self._cut(status, headers, body, transfer)
            case "drip" | "endless" | "gzip_bomb":
                if transfer == "gzip_bomb":
                    headers = headers | {b"content-encoding": b"gzip"}
                await self._begin(status, headers)
                await self._stream({"drip": _drip, "endless": _endless, "gzip_bomb": _bomb}[transfer](body))

    async def drop(self) -> None:
        """Close the connection immediately, without pending data."""
        self._transport.abort()
        await self._wait_for_its_end()

    @property
    def _transport(self) -> asyncio.Transport:
        state: dict[str, Any] = self._scope["state"]
        transport: asyncio.Transport = state["transport"]
        return transport

    async def _begin(self, status: int, headers: dict[bytes, bytes]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers.items())})

    async def _whole(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        await self._begin(status, {b"content-length": b"%d" % len(body), **headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _cut(self, status: int, headers: dict[bytes, bytes], body: bytes, transfer: Transfer) -> None:
        length = {b"content-length": b"%d" % (len(body) or 1)} if transfer == "cut" else {}
        await self._begin(status, headers | length)
        await self._send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        self._transport.close()  # not abort(): buffered data must arrive
        await self._wait_for_its_end()

    async def _stream(self, chunks: AsyncIterator[bytes]) -> None:
        disconnected = asyncio.ensure_future(self._wait_for_its_end())
        try:
            async for chunk in chunks:
                if disconnected.done():
                    return
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
        finally:
            disconnected.cancel()

    async def _wait_for_its_end(self) -> None:
        # The server answers 500 for an application that returns before the disconnect is detected.
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _drip(body: bytes) -> AsyncIterator[bytes]:
    for byte in body[:-1]:
        yield bytes((byte,))
        await asyncio.sleep(DRIP_EVERY_S)
    while True:
        yield b" "
        await asyncio.sleep(DRIP_EVERY_S)


async def _endless(body: bytes) -> AsyncIterator[bytes]:
    yield body[:-1]
    while True:
        yield _CHUNK
        await asyncio.sleep(0)  # a fast reader must not starve other connections


async def _bomb(body: bytes) -> AsyncIterator[bytes]:
    """Yield a valid gzip stream: the body, with spaces before its last byte.

    Every block of spaces ends with a full flush and so is independent of the one before: it is compressed once.
    """
    packer = compressobj(9, DEFLATED, -MAX_WBITS)
    start = packer.compress(body[:-1]) + packer.flush(Z_FULL_FLUSH)
    block = packer.compress(_CHUNK) + packer.flush(Z_FULL_FLUSH)
    end = packer.compress(body[-1:]) + packer.flush()
    yield _GZIP_HEADER + start
    checksum = crc32(body[:-1])
    blocks = BOMB_BYTES // len(_CHUNK)
    for _ in range(blocks):
        checksum = crc32(_CHUNK, checksum)
        yield block
        await asyncio.sleep(0)
    size = (len(body) + blocks * len(_CHUNK)) % _UINT32
    yield end + crc32(body[-1:], checksum).to_bytes(4, "little") + size.to_bytes(4, "little")
