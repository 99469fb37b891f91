"""A proxy that opens TLS, as a hospital's own may: what one site and its coordinator say is kept, as it crosses and in the clear."""

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from server.authority import load_server, new_authority, server_certificate

Way = Literal["up", "down"]
"""From the site, and to it."""
WAYS: tuple[Way, ...] = ("up", "down")
PIECE = 65_536
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Piece:
    at: float
    """time.time()"""
    way: Way
    data: bytes


@dataclass(kw_only=True)
class Connection:
    """One that the site opened, in the order in which it crossed."""

    sealed: list[Piece] = field(default_factory=list)
    """As it was on the wire between site and proxy, above TCP."""
    clear: list[Piece] = field(default_factory=list)

    def said(self, way: Way) -> bytes:
        return b"".join(piece.data for piece in self.clear if piece.way == way)

    def crossed(self, way: Way) -> bytes:
        return b"".join(piece.data for piece in self.sealed if piece.way == way)


class Tap:
    """One site's. Its authority is its own: a site believes it only where its file names `ca` as `[network] extra_ca`."""

    def __init__(self, folder: Path, *, trusted: Path) -> None:
        """`trusted` is the PEM of the authority that the coordinator's own certificate is of, which is checked as a site checks it."""
        folder.mkdir(parents=True)
        self.ca = folder / "ca.crt"
        self.connections: list[Connection] = []
        self.port = 0
        self._folder, self._trusted = folder, trusted
        self._authority = new_authority("A proxy that opens TLS", days=2, now=datetime.now(UTC))
        self.ca.write_bytes(self._authority.certificate)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @contextmanager
    def open(self, port: int = 0) -> Iterator["Tap"]:
        """Listens on loopback while the block lasts; 0 is any port that is free."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._serve, LOOPBACK, port))
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_ended(server), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = Connection()
        self.connections.append(one)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                host, port = await _connect(reader, writer, one)
                site = _Opened(reader, writer, one, self._shown(host))
                await site.shake()
                trusted = ssl.create_default_context(cafile=str(self._trusted))
                there, back = await asyncio.open_connection(host, port, ssl=trusted)
                try:
                    await asyncio.gather(_carry_up(site, back), _carry_down(there, site))
                    await writer.wait_closed()
                finally:
                    back.transport.abort()
        finally:
            writer.transport.abort()

    def _shown(self, host: str) -> ssl.SSLContext:
        """With a certificate for that host."""
        folder = self._folder / host
        if not folder.exists():
            server_certificate(self._authority, [host], days=1, now=datetime.now(UTC)).keep(folder)
        files = folder / "server.crt", folder / "server.key"
        load_server(self.ca, *files, hosts=[host], now=datetime.now(UTC))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*files)
        return context


class _Opened:
    """The proxy's end of the site's TLS, which counts and keeps what is on the wire; asyncio's own hides it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one: Connection, context: ssl.SSLContext) -> None:
        self._reader, self._writer, self._one = reader, writer, one
        self._come, self._go = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._come, self._go, server_side=True)

    async def shake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._more()
            else:
                await self._flush()
                return

    async def read(self) -> bytes:
        """What the site said next; empty where it has ended."""
        while True:
            try:
                data = self._tls.read(PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._more()
            except ssl.SSLError:
                return b""
            else:
                _keep(self._one.clear, "up", data)
                return data

    async def write(self, data: bytes) -> None:
        _keep(self._one.clear, "down", data)
        self._tls.write(data)
        await self._flush()

    def end(self) -> None:
        self._writer.close()

    async def _more(self) -> None:
        data = await self._reader.read(PIECE)
        _keep(self._one.sealed, "up", data)
        if data:
            self._come.write(data)
        else:
            self._come.write_eof()

    async def _flush(self) -> None:
        data = self._go.read()
        _keep(self._one.sealed, "down", data)
        self._writer.write(data)
        await self._writer.drain()


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one: Connection) -> tuple[str, int]:
    """Where the site asks to be connected to; it is told that it is. RFC 9110, section 9.3.6."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head.split(b" ", 2)
    if method != b"CONNECT":
        raise OSError(f"a proxy that only connects was asked for {method!r}")
    told = b"HTTP/1.1 200 Connection established\r\n\r\n"
    _keep(one.sealed, "up", head)
    _keep(one.sealed, "down", told)
    writer.write(told)
    host, _, port = target.decode("ascii").rpartition(":")
    return host, int(port)


async def _carry_up(site: _Opened, back: asyncio.StreamWriter) -> None:
    while data := await site.read():
        back.write(data)
        await back.drain()
    back.close()


async def _carry_down(there: asyncio.StreamReader, site: _Opened) -> None:
    while data := await there.read(PIECE):
        await site.write(data)
    site.end()


def _keep(pieces: list[Piece], way: Way, data: bytes) -> None:
    if data:
        pieces.append(Piece(at=time.time(), way=way, data=data))


async def _ended(server: asyncio.Server) -> None:
    server.close()
    mine = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not mine]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    # What was aborted is closed by the loop, a little later.
    await asyncio.sleep(0.1)
