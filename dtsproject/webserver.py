"""gunicorn's threaded worker, but that a request may wait for its answer without a thread.

While it is parked its connection belongs to nobody: its thread is free, and the poller gets it only
with the answer, as it would have got it from the thread.
"""

import contextlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from socket import SHUT_RDWR, socket
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from dtsproject.parking import PARK, Parked

# An answer is short, so it goes out at once; whose line is full of others must not hold up anybody.
SEND_SECONDS = 1.0


class ParkedRequest:
    def __init__(
        self, worker: ThreadWorker, connection: TConn, done: "Future[bool]", response: Any
    ) -> None:
        self.worker = worker
        self.connection = connection
        self.done = done
        self.response = response

    def must_end(self) -> bool:
        return not self.worker.alive or os.getppid() != self.worker.ppid

    def answer(self, body: bytes) -> None:
        sock = self.connection.sock
        try:
            sock.settimeout(SEND_SECONDS)
            self.response.write(body)
        except OSError:  # who asked has gone, or reads nothing
            with contextlib.suppress(OSError):
                sock.shutdown(SHUT_RDWR)
        hand_back = partial(ThreadWorker.finish_request, self.worker)
        self.worker.method_queue.defer(hand_back, self.connection, self.done)


class Worker(ThreadWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parked: dict[socket, tuple[Any, Callable[[Parked], None]]] = {}

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi: Any = partial(self._call, self.wsgi)

    def _call(
        self, application: Any, environ: dict[str, Any], start_response: Any
    ) -> Iterable[bytes]:
        response = start_response.__self__

        def park(then: Callable[[Parked], None]) -> None:
            response.close = lambda: None  # it would send the headers
            self._parked[environ["gunicorn.socket"]] = response, then

        if environ["SERVER_PROTOCOL"].startswith("HTTP/1."):
            environ[PARK] = park
        answer: Iterable[bytes] = application(environ, start_response)
        return answer

    def finish_request(self, connection: TConn, done: "Future[bool]") -> None:
        """Called by gunicorn once the thread is free."""
        response, then = self._parked.pop(connection.sock, (None, None))
        if then is None:
            super().finish_request(connection, done)
        else:
            then(ParkedRequest(self, connection, done, response))
