"""The benchmarks, in the order of the report: each module's `run(bench)` returns a Section."""

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.suite import (
    bloat,
    chain,
    drain,
    enqueue,
    firing,
    history,
    http,
    idle,
    latency,
    load,
    memory,
    policy,
    promote,
    queries,
    shell,
    submit,
    wal,
    workflows,
)
from benchmarks.tables import Section

MODULES = [
    drain,
    latency,
    shell,
    chain,
    workflows,
    enqueue,
    bloat,
    history,
    wal,
    memory,
    http,
    submit,
    idle,
    load,
    queries,
    policy,
    promote,
    firing,
]
SUITE: dict[str, Callable[[Bench], Section]] = {
    module.__name__.rpartition(".")[2]: module.run for module in MODULES
}
