"""`submit_rate PORT TOKEN TASKS REQUESTS`: jobs of so many tasks, one after another over one
connection that is kept alive. Prints JSON: {"seconds": how long all of them took}.
"""

import http.client
import json
import sys
import time

from benchmarks.probes.connection import connect

# So that each process of the server has loaded what it loads on its first requests.
WARM_UP_REQUESTS = 16


def submit(connection: http.client.HTTPConnection, token: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    connection.request("POST", "/api/v1/jobs", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 201:
        sys.exit(f"a submit was answered {answer.status}: {text[:300]!r}")


def body_of(tasks: int) -> bytes:
    return json.dumps({"name": "rate", "tasks": [{"payload": {"cmd": "true"}}] * tasks}).encode()


def main(port: str, token: str, tasks: str, requests: str) -> None:
    for _ in range(WARM_UP_REQUESTS):
        submit(connect(int(port)), token, body_of(1))
    connection, body = connect(int(port)), body_of(int(tasks))
    submit(connection, token, body)
    began_at = time.perf_counter()
    for _ in range(int(requests)):
        submit(connection, token, body)
    print(json.dumps({"seconds": time.perf_counter() - began_at}))


main(*sys.argv[1:])
