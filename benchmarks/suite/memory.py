"""Memory: what a worker and what belongs to it hold during a drain."""

import contextlib
import os
from pathlib import Path

from benchmarks.bench import Bench, Figures
from benchmarks.drains import drain
from benchmarks.peers import Peer
from benchmarks.tables import Section, Table, middle

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
METHOD = (
    "During the drain the resident set of the two workers and of each process they started is "
    "read again and again from /proc; the peak of the largest of each kind. Shared pages count in "
    "each process that has them."
)
PARTS = {"run_scheduler": "scheduler", "guard": "guard"}


def run(bench: Bench) -> Section:
    def measure(peer: Peer) -> Figures:
        name, tasks = bench.fresh(peer), bench.size(peer.tasks)
        peaks: dict[str, float] = {}

        def note(workers: list) -> None:
            for part, megabytes in resident({worker.pid for worker in workers}).items():
                peaks[part] = max(peaks.get(part, 0.0), megabytes)

        bench.submit(peer, name, "bulk", tasks, "noop")
        drain(bench, peer, name, tasks, meanwhile=note)
        return peaks

    rounds = bench.peers_in_turns("memory", measure)
    table = Table(["process", "peak MB"])
    for peer in bench.peers:
        found = [figures for figures in rounds[peer.name] if figures]
        for part in dict.fromkeys(part for figures in found for part in figures):
            table.rows.append([f"{peer.title} {part}", middle([f.get(part) for f in found])])
    return Section("memory", "Resident memory in a drain", METHOD, [table])


def resident(roots: set[int]) -> dict[str, float]:
    """Megabytes of the largest process of each kind among `roots` and what descends from them."""
    found: dict[str, float] = {}
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # it ended meanwhile
            # After the name in brackets: state, parent.
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(stat[1])
    for pid in parents:
        with contextlib.suppress(OSError, IndexError):
            if not descends(pid, roots, parents):
                continue
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            part = next((name for word, name in PARTS.items() if word in command), "worker")
            found[part] = max(found.get(part, 0.0), pages * PAGE_MB)
    return found


def descends(pid: int, roots: set[int], parents: dict[int, int]) -> bool:
    while pid in parents:
        if pid in roots:
            return True
        pid = parents[pid]
    return False
