"""Imports run one way: jobs <- workers <- scheduling <- dtsproject's roof; and docs are true."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
APPS = ["jobs", "workers", "scheduling"]
# What may name every app. All else in dtsproject is the cellar: it imports none, all may use it.
ROOF = {"chaos", "checks", "health", "management", "settings", "urls", "wsgi"}
CELLAR = {
    f"dtsproject.{path.stem}"
    for path in (ROOT / "dtsproject").iterdir()
    if path.stem not in ROOF and not path.stem.startswith(("_", "stack")) and path.name != "static"
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def sources(folder: str) -> list[Path]:
    return [p for p in (ROOT / folder).rglob("*.py") if "migrations" not in p.parts]


@pytest.mark.parametrize(("app", "above"), [(a, APPS[n + 1 :]) for n, a in enumerate(APPS)])
def test_no_app_imports_one_above_it(app, above):
    for path in sources(app):
        for name in imports(path):
            assert not any(within(name, other) for other in above), f"{path} imports {name}"


@pytest.mark.parametrize("app", APPS)
def test_apps_use_only_the_cellar_of_the_frame(app):
    for path in sources(app):
        for name in imports(path):
            if within(name, "dtsproject") and name != "dtsproject":
                assert any(within(name, room) for room in CELLAR), f"{path} imports {name}"


@pytest.mark.parametrize("room", sorted(CELLAR))
def test_the_cellar_imports_no_app(room):
    path = ROOT / Path(*room.split("."))
    files = [path.with_suffix(".py")] if path.with_suffix(".py").exists() else path.rglob("*.py")
    for file in files:
        for name in imports(file):
            assert not any(within(name, app) for app in APPS), f"{file} imports {name}"


def test_the_agent_has_never_heard_of_a_table():
    for name in ("agent", "runner", "executor", "capture", "guard", "processes", "handlers"):
        found = imports(ROOT / "workers" / f"{name}.py")
        assert not any(within(module, "django.db") for module in found), name
        assert not any(within(module, "jobs.models") for module in found), name


def test_the_client_is_one_file_of_the_standard_library():
    (path,) = (ROOT / "dts_client").glob("**/*.py")
    assert {name.partition(".")[0] for name in imports(path)} <= sys.stdlib_module_names


def test_the_queue_alone_writes_the_state_of_tasks():
    statements = ("UPDATE tasks", "INSERT INTO tasks", "DELETE FROM leases", "INSERT INTO leases")
    for app in [*APPS, "dtsproject"]:
        for path in (ROOT / app).rglob("*"):
            if path.suffix == ".py" and "migrations" not in path.parts:
                assert not any(s in path.read_text() for s in statements), path


CLOCKLESS = [
    "jobs/queue",
    "workers/registry",
    "scheduling/scheduler",
    "scheduling/firer",
    "scheduling/firing",
    "scheduling/plan",
    "scheduling/schedules",
]


@pytest.mark.parametrize("module", CLOCKLESS)
def test_only_the_databases_clock_judges(module):
    """Python's wall clock is read nowhere here; its monotonic one may pace a loop."""
    tree = ast.parse((ROOT / f"{module}.py").read_text())
    read = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {name for name in read if name.endswith((".now", ".utcnow", ".today", "time.time"))}


def test_the_proofs_that_the_architecture_names_exist():
    section = (ROOT / "docs" / "architecture.md").read_text().partition("## What proves it")[2]
    named = set(re.findall(r"test_\w+", section.partition("\n## ")[0]))
    files = list((ROOT / "tests").rglob("test_*.py"))
    written = {path.stem for path in files}
    for path in files:
        written |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    assert len(named) > 40
    assert named <= written


# By these a server could be made to ask others (server-side request forgery).
OUTWARD = ("ftplib", "http.client", "httpx", "requests", "smtplib", "socket", "urllib.request")
LOADED = """
import django, json, sys
django.setup()
import dtsproject.urls, dtsproject.wsgi
print(json.dumps([m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]))
"""


def test_what_answers_requests_makes_none():
    """Nothing that the server loads from here can: no URL that a client gives is fetched."""
    answer = subprocess.check_output([sys.executable, "-c", LOADED], cwd=ROOT, text=True)
    ours = [
        path
        for path in map(Path, json.loads(answer))
        if path.is_relative_to(ROOT) and not {".venv", "embedded"} & set(path.parts)
    ]  # the embedded PostgreSQL is looked for on this machine alone
    assert ROOT / "jobs" / "api" / "jobs.py" in ours
    for path in ours:
        assert not imports(path) & set(OUTWARD), path
