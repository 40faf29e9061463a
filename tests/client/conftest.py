"""A whole DTS of real processes that all tests of the client share, as its users do a server."""

import subprocess
import sys

import pytest

from dts_client import Client
from tests.chaos.installation import ROOT, Installation


@pytest.fixture(scope="package")
def dts():
    made = Installation()
    try:
        made.cluster.start_child()
        made.migrate()
        made.scheduler()
        made.worker("w1", "--slots", "4")
        made.served = made.api()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="package")
def url(dts):
    return f"http://127.0.0.1:{dts.port}"


@pytest.fixture
def client(url):
    return Client(url)


@pytest.fixture(scope="package")
def token(dts):
    """One that may read and submit."""
    command = [sys.executable, "manage.py", "token", "create", "ci", "--scopes", "read,submit"]
    options = {"cwd": ROOT, "env": dts.environment, "text": True}
    made = subprocess.run(command, check=True, capture_output=True, **options)
    return made.stdout.split()[-1]
