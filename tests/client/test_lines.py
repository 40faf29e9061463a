"""Jobs of many tasks through the client: line by line, in little memory, and never half of them."""

import http.client
import json
import re
import socket
from pathlib import Path

MEGABYTE = 1024 * 1024


def peak_memory(process) -> int:
    """Bytes at most so far, of gunicorn's one worker."""
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    status = Path(f"/proc/{worker}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def test_a_long_job_needs_little_memory(dts, client):
    idle = {"payload": {"cmd": "true", "stdin": "x" * 8_000}, "requires": ["nobody"]}
    client.submit("short", iter([idle] * 100))
    before = peak_memory(dts.served)

    job = client.submit("long", iter([idle] * 2_500))

    grown = peak_memory(dts.served) - before
    assert grown < 12 * MEGABYTE, grown  # for 20
    assert job["counts"]["pending"] == client.job(job)["counts"]["pending"] == 2_500


def test_a_body_that_breaks_off_stores_nothing(dts, client):
    """At the end of a line, so that each line there is is whole."""
    body = b"".join(
        json.dumps(line).encode() + b"\n" for line in ({"name": "half"}, {"payload": {"cmd": "x"}})
    )
    head = (
        "POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        f"Content-Length: {len(body) + 50}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", dts.port), timeout=20) as sender:
        sender.sendall(head.encode() + body)
        sender.shutdown(socket.SHUT_WR)
        answer = sender.makefile("rb").read()
    assert b" 400 " in answer.splitlines()[0]
    assert b"before its Content-Length" in answer
    assert not list(client.jobs(name="half"))


def test_a_refusal_is_heard_though_much_is_still_to_be_sent(dts):
    """By one who closes the connection afterwards, too: what is left unread would reset it."""
    bad = json.dumps({"payload": {"cmd": "x" * 2_000}, "priority": 500}).encode()
    body = b"\n".join([b'{"name": "bad"}', *[bad] * 5_000])
    headers = {"Content-Type": "application/x-ndjson", "Connection": "close"}
    connection = http.client.HTTPConnection("127.0.0.1", dts.port, timeout=60)

    connection.request("POST", "/api/v1/jobs", body, headers)

    answer = json.load(connection.getresponse())
    assert (answer["code"], answer["errors"][0]["line"]) == ("invalid", 2)
    assert len(answer["errors"]) == 100
