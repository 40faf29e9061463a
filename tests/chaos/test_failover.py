"""The primary dies under load: what was acknowledged is on its standby, and goes on there."""

import itertools
import subprocess
import sys
import threading
import time

import pytest

from tests.chaos.installation import API, ROOT, frozen, kill, watch
from tests.chaos.pair import Pair, change
from tests.helpers import wait_until

SUBMITS = 20
# Until somebody has noticed that the primary is gone, and promotes the standby.
NOTICED_SECONDS = 2
CONNECTIONS = {"dts scheduler": 2, "dts recovery": 1, "dts worker": 2 * 3}


@pytest.fixture
def dts():
    made = Pair(DTS_DATABASE_TIMEOUT_SECONDS="1")
    try:
        made.cluster.start_child()
        made.migrate()
        made.start_standby()
        yield made
    finally:
        made.end()


class Client(threading.Thread):
    """Submits one job after another, and knows when each, by name, was acknowledged."""

    def __init__(self, dts: Pair, command: str) -> None:
        super().__init__(daemon=True)
        self.dts = dts
        self.tasks = [{"payload": {"cmd": command}}]
        self.acknowledged: dict[str, float] = {}
        self.over = threading.Event()

    def run(self) -> None:
        for number in itertools.count():
            job = {"name": f"{self.name} {number}", "tasks": self.tasks}
            if self.dts.ask("/api/v1/jobs", job)[0] == 201:
                self.acknowledged[job["name"]] = time.monotonic()
            if self.over.wait(0.02):
                return

    def lost(self) -> set[str]:
        """What was acknowledged and is not there."""
        return self.acknowledged.keys() - {
            name for (name,) in self.dts.rows("SELECT name FROM jobs")
        }

    def end(self) -> None:
        self.over.set()
        self.join()


def of_loops(dts: Pair) -> dict[str, int]:
    """Connections of all but the API, which has one for each thread that was ever asked."""
    return {name: number for name, number in dts.connections().items() if name != API}


def fail_over(dts: Pair, client: Client) -> tuple[int, int, float]:
    """Under load the primary is killed and the standby promoted.

    Returns how many submits were acknowledged before and after, and the longest time in seconds
    in which none was.
    """
    client.start()
    wait_until(lambda: len(client.acknowledged) > SUBMITS)
    kill(dts.cluster)
    before = len(client.acknowledged)
    time.sleep(NOTICED_SECONDS)
    assert len(client.acknowledged) <= before + 1  # whose answer was under way
    dts.promote()
    wait_until(lambda: len(client.acknowledged) > before + SUBMITS)
    client.end()
    pairs = itertools.pairwise(client.acknowledged.values())
    pause = max(later - sooner for sooner, later in pairs)
    return before, len(client.acknowledged) - before, pause


def test_a_failover_loses_nothing_that_was_acknowledged(dts):
    dts.wait_for_standby()
    dts.api()
    dts.scheduler()
    dts.recovery()
    for name in ("w1", "w2"):
        dts.worker(name, "--slots", "2")
    wait_until(lambda: of_loops(dts) == CONNECTIONS)
    client = Client(dts, f"echo $DTS_TASK_ID >> {dts.home}/runs; sleep 0.05")

    before, after, pause = fail_over(dts, client)

    assert client.lost() == set()
    wait_until(dts.over, 60)
    endings = dts.endings()
    print(f"acknowledged before {before}, after {after}; {pause:.1f} s none; ended: {endings}")
    assert endings.keys() == {"done"}
    tasks, most_recorded = endings["done"]
    assert tasks >= before + after
    assert most_recorded == 1
    assert len(set((dts.home / "runs").read_text().split())) == tasks
    subprocess.run(
        [sys.executable, "manage.py", "audit"], cwd=ROOT, env=dts.environment, check=True
    )
    assert pause < NOTICED_SECONDS + 10
    assert dts.alive()
    wait_until(lambda: of_loops(dts) == CONNECTIONS)
    assert all(seen == CONNECTIONS for seen in watch(2, lambda: of_loops(dts)))


def test_the_standby_vouches_for_what_is_acknowledged_only_if_commits_wait_for_it(dts):
    dts.api()
    dts.wait_for_standby()
    with frozen(dts.standby):
        assert dts.submit("true") is None

    change(dts.cluster, "synchronous_standby_names", "")
    change(dts.standby, "primary_conninfo", "")
    wait_until(lambda: dts.standbys() == {})
    client = Client(dts, "true")
    fail_over(dts, client)

    assert client.lost()
