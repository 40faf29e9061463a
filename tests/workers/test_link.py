"""The line to the API, against a server that answers as servers and proxies do on bad days."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dtsproject.backoff import Backoff
from dtsproject.errors import Refusal, Unreachable
from workers.registry import NameTaken, Superseded
from workers.transports.link import Link


class Scripted(ThreadingHTTPServer):
    """Gives one answer after the other: (status, headers, body), or None for no answer at all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list = []
        self.asked: list = []
        self.connections = 0
        self.hangs_up = False

    def get_request(self):
        self.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), json.loads(body)))
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, headers, text = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)
        self.close_connection = self.close_connection or self.server.hangs_up

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    made = Scripted()
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def link(server):
    made = Link(f"http://127.0.0.1:{server.server_port}/dts/", lambda: "dts_1")
    yield made
    made.close()


def problem(status: int, code: str, **headers: str):
    document = {"status": status, "code": code, "title": "No", "detail": f"because of {code}"}
    return (
        status,
        {"Content-Type": "application/problem+json", **headers},
        json.dumps(document).encode(),
    )


OK = (200, {}, b'{"a": 1}')


def test_calls_go_over_one_connection_with_the_token(server, link):
    server.answers = [OK, (204, {}, b"")]
    assert link.post("/x", {"text": "\N{SNOWMAN}\ud800"}) == {"a": 1}
    assert link.post("/y", {}) is None
    (path, headers, body), (second, *_) = server.asked
    assert (path, second) == ("/dts/x", "/dts/y")
    assert headers["Authorization"] == "Bearer dts_1"
    assert body == {"text": "\N{SNOWMAN}?"}
    assert server.connections == 1


def test_whoever_waits_for_an_answer_may_be_hung_up_on_from_another_thread(server, link):
    server.answers = [(200, {"Content-Length": "5"}, b""), OK]
    link.connect()
    link.send("/x", {})
    threading.Timer(0.1, link.hang_up).start()
    with pytest.raises(Unreachable):
        link.receive(20)
    assert link.post("/x", {}) == {"a": 1}


def test_a_connection_that_was_closed_meanwhile_costs_no_call(server, link):
    server.answers = [(200, {"Connection": "close"}, b"{}"), OK, OK]
    for _ in range(3):
        link.post("/x", {})
        time.sleep(0.05)
    assert server.connections == 2


def test_a_connection_that_was_closed_without_a_word_costs_no_call(server, link):
    """As by a server that keeps none for long, or whose process ended."""
    server.answers, server.hangs_up = [OK, OK], True
    link.post("/x", {})
    time.sleep(0.2)
    assert link.post("/x", {}) == {"a": 1}
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "asked_seconds"),
    [
        (None, 0),
        (problem(503, "unavailable", **{"Retry-After": "7"}), 7),
        (problem(429, "throttled", **{"Retry-After": "3"}), 3),
        (problem(500, "internal_error"), 0),
        ((502, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"<html>"), 0),
        ((404, {}, b"<html>no backend</html>"), 0),
        ((401, {}, b'"a proxy"'), 0),
        ((302, {"Location": "/login"}, b""), 0),
        ((200, {}, b"<html>welcome to our wireless network</html>"), 0),
    ],
)
def test_what_is_no_answer_of_dts_is_unreachable_and_the_next_call_connects(
    server, link, answer, asked_seconds
):
    server.answers = [answer, OK]
    with pytest.raises(Unreachable) as raised:
        link.post("/x", {})
    assert raised.value.retry_after_seconds == asked_seconds
    assert link.post("/x", {}) == {"a": 1}


def test_a_server_that_says_nothing_is_given_up(server, link):
    server.answers = [(200, {"Content-Length": "5"}, b"")]
    began_at = time.monotonic()
    with pytest.raises(Unreachable):
        link.post("/x", {}, 0.3)
    assert time.monotonic() - began_at < 5


def test_nobody_there_is_unreachable():
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        Link("http://127.0.0.1:1", str).post("/x", {})


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "worker_name_taken", NameTaken),
        (409, "worker_superseded", Superseded),
        (401, "authentication_failed", Refusal),
        (403, "scope_missing", Refusal),
        (400, "invalid", Refusal),
    ],
)
def test_a_problem_is_a_refusal_of_its_kind(server, link, status, code, kind):
    server.answers = [problem(status, code)]
    with pytest.raises(kind, match=f"because of {code}") as raised:
        link.post("/x", {})
    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.code) == (status, code)


def test_a_token_that_was_exchanged_meanwhile_is_no_refusal(server):
    tokens = ["old", "new", "new"]
    link = Link(f"http://127.0.0.1:{server.server_port}", lambda: tokens.pop(0))
    server.answers = [problem(401, "authentication_failed"), OK]
    with pytest.raises(Unreachable, match="exchanged"):
        link.post("/x", {})
    assert link.post("/x", {}) == {"a": 1}
    assert [headers["Authorization"] for _, headers, _ in server.asked] == [
        "Bearer old",
        "Bearer new",
    ]


def test_a_backoff_waits_as_long_as_it_was_asked_to():
    backoff = Backoff(5)
    assert 2 <= backoff.next(2) <= 3
    assert 5 <= backoff.next(1000) <= 7.5
    assert backoff.next() <= 0.6
