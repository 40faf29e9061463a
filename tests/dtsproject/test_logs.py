"""What clients send reaches the log as text: no line of theirs, no terminal codes, no token."""

import io
import json
import logging
import re
import socket

import pytest
import structlog

from dtsproject import logs
from jobs.models import Token
from tests.test_shipping import gunicorn

RED = "\x1b[31m"
SECRET = "dts_0a1b2c3d_" + "s" * 43


@pytest.fixture
def written():
    """Logs into a text; gives a function that configures the form and one that reads it."""
    root, before, config = logging.getLogger(), logging.getLogger().handlers, structlog.get_config()
    stream = io.StringIO()

    def configure(*, as_json: bool) -> io.StringIO:
        logs.configure(as_json=as_json)
        root.handlers[0].setStream(stream)
        return stream

    yield configure
    root.handlers = before
    structlog.configure(**config)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_name_is_neither_a_line_nor_a_colour(written, as_json):
    stream = written(as_json=as_json)
    name = f"a\n2026-01-01 [info] forged{RED}\u202e\r"
    structlog.get_logger("t").info("heard", name=name, names=[name])
    logging.getLogger("gunicorn.access").info('"%s" 200', name)
    first, second = stream.getvalue().splitlines()
    for line in (first, second):
        assert line.isprintable()
        assert "forged" in line
    if as_json:
        assert json.loads(first)["event"] == "heard"


@pytest.mark.parametrize("as_json", [True, False])
def test_no_token_is_written(written, as_json):
    stream = written(as_json=as_json)
    logging.getLogger("gunicorn.access").info("GET /?token=%s", SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError:
        structlog.get_logger("t").exception("failed", token=SECRET)
    text = stream.getvalue()
    assert SECRET not in text
    assert text.count("dts_0a1b2c3d_***") == 3


def test_a_traceback_keeps_its_lines(written):
    stream = written(as_json=False)
    try:
        raise ValueError(f"a{RED}b")
    except ValueError:
        structlog.get_logger("t").exception("failed")
    assert "\nTraceback (most recent call last):\n" in stream.getvalue()
    assert RED not in stream.getvalue()


@pytest.mark.django_db
def test_a_token_is_compared_by_its_hash_in_constant_time(monkeypatch):
    compared = []
    _, text = Token.issue("t", ["read"])
    monkeypatch.setattr("hmac.compare_digest", lambda *both: compared.append(both) or False)
    assert Token.find(text) is None
    ((kept, given),) = compared
    assert kept == given != text.rpartition("_")[2]


def test_the_server_logs_what_it_is_sent_as_text(tmp_path):
    with gunicorn(tmp_path, ORCH_HOST="127.0.0.1") as server:
        said = next(line for line in server.stderr if "Listening at" in line)
        port = int(re.search(r":(\d+) ", said)[1])
        for request in (
            f"GET /healthz?{RED}&token={SECRET} HTTP/1.1\r\nHost: localhost\r\n",
            f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: {RED}\r\n",
            f"GET /nope{RED} HTTP/1.1\r\nHost: evil{RED}\r\n",
            f"G{RED}T /healthz HTTP/1.1\r\nHost: localhost\r\n",
            f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\n",
        ):
            ask(port, request + "Connection: close\r\n\r\n")
        server.terminate()
        _, said = server.communicate(timeout=60)
    assert said.count("/healthz") >= 2
    assert r"\x1b[31m" in said
    assert RED not in said
    assert "ssss" not in said


def ask(port: int, request: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request.encode("latin-1"))
        return connection.makefile("rb").read()
