"""The API against its own description: schemathesis makes up requests by /api/schema, valid ones
and others, and checks that each answer is one that is documented there.

`make fuzz EXAMPLES=500` makes up more of them than the suite does.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.installation import ROOT, Installation
from tests.helpers import wait_until

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "5")
SEED = os.environ.get("FUZZ_SEED", "1")
PHASES = os.environ.get("FUZZ_PHASES", "examples,fuzzing")  # the others take a minute
CONFIG = Path(__file__).with_name("schemathesis.toml")
ANSWERED = re.compile(r'" (\d{3}) \S+ bytes')


class Api(Installation):
    """The server and a scheduler. No worker runs: what is made up is never executed."""

    token = ""

    def begin(self) -> None:
        self.cluster.start_child()
        self.migrate()
        self.api()
        self.scheduler()
        command = [sys.executable, "manage.py", "token", "create", "fuzz"]
        command += ["--scopes", "read,submit,operate,work,admin"]
        options = {"cwd": ROOT, "env": self.environment, "text": True}
        self.token = subprocess.check_output(command, **options).strip()

    def call(self, path: str, body: object = None) -> dict:
        asked = self.ask(f"/api/v1/{path}", body, Authorization=f"Bearer {self.token}")
        assert asked[0] in (200, 201), asked
        return json.loads(asked[2])

    def statuses(self) -> Counter:
        return Counter(map(int, ANSWERED.findall(self.log_of("api"))))

    def logs(self) -> str:
        """Without a line for each request."""
        return re.sub(rf".*{ANSWERED.pattern}.*\n", "", super().logs())


@pytest.fixture
def dts():
    made = Api(DTS_ANONYMOUS_ACCESS="off", DTS_LEASE_SECONDS="3600", WEB_CONCURRENCY="2")
    try:
        made.begin()
        some_history(made)
        yield made
    finally:
        made.end()


def some_history(dts: Api) -> None:
    """Work in several states: small ids, which are made up most, name something."""
    boot, tasks = {"boot_id": str(uuid.uuid4())}, []
    worker = {**boot, "name": "w1", "machine_id": "m1", "slots": 3}
    path = f"workers/{dts.call('workers', worker)['id']}"
    for _ in range(3):
        dts.call("jobs", {"name": "history", "tasks": [{"payload": {"cmd": "true"}}] * 3})

    def claimed() -> list:
        tasks.extend(dts.call(f"{path}/claim", {**boot, "limit": 3})["tasks"])
        return tasks

    wait_until(claimed)
    held = {name: tasks[0][name] for name in ("task_id", "fencing_token")}
    part = {**held, "stream": "stdout", "start": 0, "data": "aGVsbG8K"}
    dts.call(f"{path}/log", {**boot, "parts": [part]})
    dts.call(f"{path}/report", {**boot, "endings": [{**held, "outcome": "done"}]})


def test_every_answer_is_one_that_is_documented(dts):
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG)]
    command += ["run", f"http://127.0.0.1:{dts.port}/api/schema", "--checks", "all"]
    command += ["--max-examples", EXAMPLES, "--seed", SEED, "--continue-on-failure"]
    command += ["--phases", PHASES, "--workers", "2"]

    environment = {**os.environ, "DTS_TOKEN": dts.token, "PYTHONPATH": str(ROOT)}
    fuzz = subprocess.run(command, env=environment, cwd=dts.home)

    statuses = dts.statuses()
    print(f"The server's log has {statuses.total():,} answers: {dict(sorted(statuses.items()))}")
    assert fuzz.returncode == 0
    assert max(statuses) < 500
