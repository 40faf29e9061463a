"""Installs rivals into .bench/ on first use, in the versions that two files here pin."""

import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import PeerFailed

HERE = Path(__file__).parent
FOLDER = HERE.parent / ".bench"
PINS = HERE / "requirements-rivals.txt"
PACKAGE_JSON = HERE / "package.json"
PYTHON_PACKAGES = {
    "procrastinate": ["procrastinate", "psycopg[binary]"],
    "pgqueuer": ["pgqueuer[asyncpg]", "uvloop"],
    "django_tasks_db": ["django-tasks-db[compat]", "psycopg[binary]"],
}


def python(rival: str) -> str:
    """The interpreter that has the rival. Raises PeerFailed if it cannot be installed."""
    folder = FOLDER / "venv"
    program = folder / "bin" / "python"
    pip = [str(program), "-m", "pip", "install", "--disable-pip-version-check"]
    if not program.exists():
        venv.create(folder, with_pip=True)
    packages = PYTHON_PACKAGES[rival]
    _once(rival, PINS, [*pip, "--constraint", str(PINS), *packages], folder)
    return str(program)


def node(rival: str) -> str:
    """Node.js, with the rival's packages in .bench/node. Raises PeerFailed if there is no npm."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if not (found and npm):
        raise PeerFailed("Node.js and npm are not installed")
    folder = FOLDER / "node"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(PACKAGE_JSON, folder)
    _once(rival, PACKAGE_JSON, [npm, "install", "--no-audit", "--no-fund"], folder)
    return found


def _once(rival: str, pins: Path, command: Sequence[str], folder: Path) -> None:
    stamp = folder / f"{rival}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}.installed"
    if stamp.exists():
        return
    print(f"installing {rival} into {folder} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False)
    if done.returncode:
        raise PeerFailed(f"could not be installed: {command[0]} ended with {done.returncode}")
    stamp.touch()
