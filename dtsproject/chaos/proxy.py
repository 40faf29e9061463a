"""Stands between the processes and PostgreSQL's unix socket, and spoils what passes."""

import asyncio
import contextlib
import threading
from pathlib import Path
from random import Random

SOCKET = ".s.PGSQL.5432"
CHUNK_BYTES = 64 * 1024


class Proxy(threading.Thread):
    """Listens in `folder`; `upstream` is the folder of the server's own socket.

    `delay_seconds` holds back whatever clients send. With `lost_answers` (0 to 1) a statement
    is passed on, and when the server has answered, so that what it had to commit is committed,
    the answer is thrown away and the connection cut.
    """

    def __init__(self, folder: Path, upstream: Path, seed: int) -> None:
        super().__init__(name="proxy", daemon=True)
        self.path, self.upstream = folder / SOCKET, upstream / SOCKET
        self.delay_seconds = 0.0
        self.lost_answers = 0.0
        self.cut = 0
        self._random = Random(f"proxy {seed}")  # noqa: S311
        self._links: set[Link] = set()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        await asyncio.start_unix_server(self._accept, self.path)
        self._listening.set()
        await self._loop.create_future()  # for ever: the process ends

    def start(self) -> None:
        """Returns when clients can connect."""
        super().start()
        if not self._listening.wait(10):
            raise OSError(f"the proxy cannot listen on {self.path}")

    def drop(self) -> None:
        """Cuts every connection."""
        self._loop.call_soon_threadsafe(self._drop)

    def _drop(self) -> None:
        for link in list(self._links):
            link.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server = await asyncio.open_unix_connection(self.upstream)
        except OSError:
            return writer.transport.abort()
        link = Link(self, writer, server)
        self._links.add(link)
        back = asyncio.create_task(link.answers(server_reader))
        with contextlib.suppress(OSError):
            await link.requests(reader)
            server.close()
            await back
        link.cut()
        self._links.discard(link)

    def loses_an_answer(self) -> bool:
        return self._random.random() < self.lost_answers


class Link:
    """One client's connection and the one to the server that serves it."""

    def __init__(
        self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.doomed = False

    async def requests(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if delay := self.proxy.delay_seconds:
                await asyncio.sleep(delay)
            self.doomed = self.doomed or self.proxy.loses_an_answer()
            self.server.write(data)
            await self.server.drain()

    async def answers(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self.doomed:
                    self.proxy.cut += 1
                    break
                self.client.write(data)
                await self.client.drain()
        self.cut()

    def cut(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()
