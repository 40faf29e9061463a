"""What may stand between a client and a server, and loses what passes."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Relay(ThreadingHTTPServer):
    """Passes requests on to the server at `port`. The next ones meet `faults`: `lost` is passed on
    and not answered, `dropped` not even passed on, `later` gets 503 with `Retry-After: 1`."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.faults, self.seen = port, [], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Relay

    def do_GET(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        fault = self.server.faults.pop(0) if self.server.faults else ""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if fault == "dropped":
            return
        if fault == "later":
            self.send_response(503)
            self.send_header("Retry-After", "1")
            self.end_headers()
            return
        status, headers, answer = self.ask(body)
        if fault != "lost":
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

    do_POST = do_GET

    def ask(self, body: bytes):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def relay(port: int) -> Iterator[Relay]:
    with Relay(port) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()
