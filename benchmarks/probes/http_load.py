"""`http_load PORT PATH BODY TOKEN`: claims over kept-alive connections until nothing is left.

Prints JSON: {"requests": a second, "claims": tasks a second}.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.probes.connection import connect

CONNECTIONS = 8
WARM_UP_REQUESTS = 5


def warm_up(port: int) -> None:
    """Has every process load what it loads on its first request, though the answer be 404."""
    for _ in range(WARM_UP_REQUESTS):
        connection = connect(port)
        connection.request("GET", "/nothing")
        connection.getresponse().read()
        connection.close()


def claims(port: int, path: str, body: str, token: str) -> tuple[int, int]:
    """How many requests were answered with tasks, and with how many."""
    connection, requests, tasks = connect(port), 0, 0
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    while True:
        connection.request("POST", f"/{path}", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{path} answered {answer.status}: {text[:300]!r}")
        some = len(json.loads(text)["tasks"])
        if not some:
            return requests, tasks
        requests, tasks = requests + 1, tasks + some


def main(port: str, path: str, body: str, token: str) -> None:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(warm_up, [int(port)] * CONNECTIONS))
    began_at = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        asked = [pool.submit(claims, int(port), path, body, token) for _ in range(CONNECTIONS)]
    seconds = time.perf_counter() - began_at
    found = [future.result() for future in asked]
    rates = {"requests": sum(r for r, _ in found), "claims": sum(c for _, c in found)}
    print(json.dumps({name: n / seconds for name, n in rates.items()}))


main(*sys.argv[1:])
