"""HTTP: claims of ten tasks a request through gunicorn."""

import json
import socket
import sys
from functools import partial

from benchmarks.bench import Bench, Figures, references, values
from benchmarks.peers import BARE, DTS, Peer
from benchmarks.processes import GUNICORN
from benchmarks.tables import Section, Table, middle, ratio

TASKS, QUICK_TASKS = 40_000, 5_000
METHOD = (
    "gunicorn as DTS configures it (two processes, eight threads each), asked over eight "
    "connections that are kept alive for ten tasks a request until none is left. DTS: its workers' "
    "door, with a token, on tasks that are queued. The limit: a Django REST framework view that "
    "runs one claim statement on the reference's narrow table, without authentication or "
    "middleware. The client, a Python process, shares the cores with both."
)


def run(bench: Bench) -> Section:
    tasks = bench.size(TASKS, QUICK_TASKS)
    titles = {BARE.name: "bare REST framework view", DTS.name: "DTS"}
    measures = {peer.name: partial(measure, bench, peer, tasks) for peer in (BARE, DTS)}
    rounds = bench.in_turns("http", measures)
    table = Table(["claim of ten", "requests/s", "tasks/s", "of the bare view"])
    for name, title in titles.items():
        requests, claims = (values(rounds, name, figure) for figure in ("requests", "claims"))
        part = ratio(requests, references(rounds, "requests"))
        table.rows.append([title, middle(requests), middle(claims), part])
    return Section("http", "Claims over HTTP", METHOD, [table])


def measure(bench: Bench, peer: Peer, tasks: int) -> Figures:
    name, port = bench.fresh(peer), free_port()
    bench.submit(peer, name, "bulk", tasks, "noop")
    environment = bench.django(name) | {"ORCH_PORT": str(port)}
    python = [sys.executable, "-m"]
    given = ["claims", "{}", ""]
    if peer is BARE:
        environment["DJANGO_SETTINGS_MODULE"] = "benchmarks.bare.settings"
    else:
        prepare = [*python, "benchmarks.probes.http_prepare", str(tasks)]
        given = json.loads(bench.processes.run(prepare, environment))
    with bench.processes.running([GUNICORN], environment):
        load = [*python, "benchmarks.probes.http_load", str(port), *given]
        figures: Figures = json.loads(bench.processes.run(load, environment))
    return figures


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
