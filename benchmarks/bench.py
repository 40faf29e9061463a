"""What every benchmark is given: the database, the peers, and how to run them in turns."""

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg

from benchmarks import database, install
from benchmarks.database import Database
from benchmarks.errors import PeerFailed
from benchmarks.marks import Marks
from benchmarks.peers import HERE, REFERENCE, ROOT, Peer
from benchmarks.processes import Processes

Figures = Mapping[str, float]
Rounds = dict[str, list[Figures | None]]


@dataclass
class Bench:
    database: Database
    folder: Path
    peers: Sequence[Peer]
    quick: bool
    minutes: float
    most_tasks: int | None = None
    notes: list[str] = field(default_factory=list)
    failed: bool = False

    def __post_init__(self) -> None:
        self.processes = Processes(self.folder)
        self.marks = Marks(self.folder / "marks")
        self.rounds = 1 if self.quick else 3
        self._infos: dict[str, dict[str, str]] = {}

    def size(self, full: int, quick: int | None = None) -> int:
        """How many: `full`, or with QUICK `quick` (a tenth by default); never above --n."""
        wanted = (quick or full // 10) if self.quick else full
        return min(wanted, self.most_tasks or wanted)

    def environment(self, name: str) -> dict[str, str]:
        """What an adapter needs to work on the database `name`."""
        return {
            **self.database.environment(name),
            "BENCH_DSN": self.database.url(name),
            "BENCH_MARK": str(self.marks.path),
            "BENCH_NODE": str(install.FOLDER / "node"),
            "PYTHONPATH": f"{ROOT}:{HERE / 'adapter-lib'}",
        }

    def django(self, name: str) -> dict[str, str]:
        """What a manage.py command or a probe needs to work on the database `name`."""
        return {
            **self.environment(name),
            "DATABASE_URL": self.database.url(name),
            "DJANGO_SETTINGS_MODULE": "dtsproject.settings",
            "DTS_LOCAL": "1",
            "DTS_STATE_DIR": str(self.folder / "dts"),
        }

    def call(self, peer: Peer, name: str, *arguments: object) -> str:
        """Has the peer's adapter do a verb. Raises PeerFailed."""
        return self.processes.run(peer.command(*arguments), self.environment(name))

    def submit(self, peer: Peer, name: str, *arguments: object) -> float:
        """Has the adapter submit tasks; how many a second."""
        printed = self.call(peer, name, *arguments)
        for line in printed.splitlines():
            if line.startswith("ENQ "):
                _, n, seconds = line.split()
                return float(n) / max(float(seconds), 1e-9)
        raise PeerFailed(f"{' '.join(map(str, arguments))} did not say how long it took")

    def info(self, peer: Peer) -> dict[str, str]:
        """What the adapter says of itself; on the first call its tables are made too."""
        if peer.name not in self._infos:
            self.database.create(peer.name)
            self.call(peer, peer.name, "setup")
            self._infos[peer.name] = json.loads(self.call(peer, peer.name, "info"))
        return self._infos[peer.name]

    def fresh(self, peer: Peer) -> str:
        """The name of a database with the peer's tables, empty."""
        self.info(peer)
        return self.database.create("run", template=peer.name)

    @contextlib.contextmanager
    def workers(self, peer: Peer, name: str, profile: str, n: int) -> Iterator[list]:
        """`n` workers of the peer at work on the database."""
        commands = [peer.command("worker", profile)] * n
        with self.processes.running(commands, self.environment(name)) as started:
            yield started

    def peers_in_turns(
        self,
        step: str,
        measure: Callable[[Peer], Figures],
        *,
        rounds: int | None = None,
        peers: Sequence[Peer] | None = None,
    ) -> Rounds:
        """A round of each peer, then the next; see `in_turns`."""
        measures = {peer.name: partial(measure, peer) for peer in peers or self.peers}
        return self.in_turns(step, measures, rounds=rounds)

    def in_turns(
        self, step: str, measures: Mapping[str, Callable[[], Figures]], *, rounds: int | None = None
    ) -> Rounds:
        """Each measure once, then each again: a noisy minute hits them alike.

        One that fails is named, and left out of the rounds that follow.
        """
        found: Rounds = {name: [] for name in measures}
        rounds = rounds or self.rounds
        for number in range(1, rounds + 1):
            for name, measure in measures.items():
                failed = None in found[name]
                figures = None if failed else self.attempt(f"{step} {name}", measure)
                found[name].append(figures)
                told = figures and ", ".join(f"{k} {v:,.4g}" for k, v in figures.items())
                say(f"[{number}/{rounds}] {step} {name}: {told or 'left out'}")
        return found

    def attempt(self, what: str, measure: Callable[[], Figures]) -> Figures | None:
        """The figures; None, and a note of the reason, if they cannot be had."""
        try:
            return measure()
        except (PeerFailed, psycopg.Error, OSError) as error:
            self.failed = True
            self.notes.append(f"{what}: {str(error).strip()}")
            say(self.notes[-1])
            return None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def values(rounds: Rounds, name: str, figure: str) -> list[float | None]:
    """One figure of a peer, a value a round."""
    return [f.get(figure) if f else None for f in rounds.get(name, [])]


def references(rounds: Rounds, figure: str) -> list[float | None]:
    return values(rounds, REFERENCE, figure)


def installed(peers: Sequence[Peer]) -> tuple[list[Peer], list[str]]:
    """Those that can run here, and for each of the others a line that says why it cannot."""
    usable, left_out = [], []
    for peer in peers:
        try:
            peer.program(peer.name)
            usable.append(peer)
        except (PeerFailed, OSError) as error:
            left_out.append(f"{peer.title} is left out: {error}")
            say(left_out[-1])
    return usable, left_out


@contextlib.contextmanager
def opened(
    peers: Sequence[Peer], *, quick: bool, minutes: float, most_tasks: int | None
) -> Iterator[Bench]:
    """Everything a run needs; nothing of it is left after the block."""
    install.FOLDER.mkdir(exist_ok=True)
    with (
        database.opened(install.FOLDER) as server,
        tempfile.TemporaryDirectory(prefix="dts-bench-") as folder,
    ):
        usable, left_out = installed(peers)
        bench = Bench(server, Path(folder), usable, quick, minutes, most_tasks, left_out)
        try:
            yield bench
        finally:
            bench.processes.close()
