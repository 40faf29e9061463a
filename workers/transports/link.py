"""A worker's line to the API: JSON over HTTP, on a connection that is kept."""

import contextlib
import http.client
import json
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from dtsproject.errors import Refusal, Unreachable
from workers.registry import NameTaken, Superseded

CONNECT_SECONDS = 5.0
# More than the server itself waits for its database before it answers 503.
ANSWER_SECONDS = 25.0
# Below the time for which servers keep a connection that is not in use (gunicorn.conf.py: 5 s).
IDLE_SECONDS = 4.0
REFUSALS = {kind.code: kind for kind in (NameTaken, Superseded)}


class Link:
    """One connection, for one thread. Asks `server`, an http or https URL, perhaps with a path, as
    the bearer of what `token` gives at that moment; empty: of no token.

    Each call raises Unreachable, and the next one connects anew.
    """

    def __init__(self, server: str, token: Callable[[], str]) -> None:
        self.server = server
        self.token = token
        self._url = urlsplit(server)
        self._connection: http.client.HTTPConnection | None = None
        self._used_at = 0.0
        self._sent = ""

    def post(self, path: str, body: Mapping[str, Any], seconds: float = ANSWER_SECONDS) -> Any:
        """The answer to this body as JSON; see `receive`."""
        self.connect()
        self.send(path, body)
        return self.receive(seconds)

    def connect(self) -> bool:
        """Makes the connection if it is not there any more, or soon will not be: then true."""
        sock = self._connection.sock if self._connection else None
        if sock and time.monotonic() - self._used_at < IDLE_SECONDS and not _was_closed(sock):
            return False
        self.close()
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(self._url.netloc, timeout=CONNECT_SECONDS)
        with self._reaching() as connection:
            connection.connect()
        return True

    def send(self, path: str, body: Mapping[str, Any]) -> None:
        # What is no character of UTF-8, the server would refuse.
        text = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        with self._reaching() as connection:
            connection.sock.settimeout(ANSWER_SECONDS)
            connection.request("POST", self._url.path.rstrip("/") + path, text, self._headers())

    def receive(self, seconds: float) -> Any:
        """The answer to what was sent; each of its bytes has `seconds` to come.

        Raises what a refusal stands for, and Unreachable for an answer that is none of DTS's.
        """
        with self._reaching() as connection:
            connection.sock.settimeout(seconds)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status == 401 and self.token() != self._sent:
                raise ConnectionError("the token was exchanged meanwhile")
        self._used_at = time.monotonic()
        return self._understood(answer, data)

    def hang_up(self) -> None:
        """From any thread: whoever waits for an answer gets none."""
        sock = self._connection.sock if self._connection else None
        if sock is not None:
            with contextlib.suppress(OSError):
                # The plain socket's: TLS' own would disturb the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def fileno(self) -> int | None:
        """The connection's descriptor, if there is one."""
        sock = self._connection.sock if self._connection else None
        return sock.fileno() if sock else None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[Any]:
        try:
            yield self._connection
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"{self.server}: {error or type(error).__name__}") from error

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "dts-worker"}
        self._sent = self.token()
        if self._sent:
            headers["Authorization"] = f"Bearer {self._sent}"
        return headers

    def _understood(self, answer: http.client.HTTPResponse, data: bytes) -> Any:
        document: Any = None
        with contextlib.suppress(ValueError):
            document = json.loads(data or b"null")
            if answer.status < 300:
                return document
        detail = document.get("detail", "") if isinstance(document, dict) else ""
        if detail and 400 <= answer.status < 500 and answer.status != 429:
            raise refusal(document)
        # Also what a proxy says while no server stands behind it.
        asked = answer.headers.get("Retry-After", "")
        reason = f"{self.server} answered {answer.status} {detail}".strip()
        raise Unreachable(reason, float(asked) if asked.isdecimal() else 0.0)


def refusal(problem: Mapping[str, Any]) -> Refusal:
    """What a problem document says."""
    made = REFUSALS.get(problem["code"], Refusal)(problem["detail"])
    made.status, made.code, made.title = problem["status"], problem["code"], problem["title"]
    return made


def _was_closed(sock: Any) -> bool:
    """Whether the other side closed a connection that nobody was using."""
    # Not `select`: with many tasks running its number may be above 1024.
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
