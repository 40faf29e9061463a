"""A client that a stranger makes from docs/openapi.json, by a generator that knows no DTS."""

import importlib
import json
import subprocess
import sys
import time

import pytest

from tests.chaos.installation import ROOT

BYTES = "application/octet-stream"
pytest.importorskip("openapi_python_client", reason="see requirements-dev.in")


@pytest.fixture
def generated(tmp_path, monkeypatch):
    """The package that the generator makes, which has nothing to complain of."""
    # It knows no NDJSON, and is told so.
    config = {"post_hooks": [], "content_type_overrides": {"application/x-ndjson": BYTES}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"]
    paths = ["--path", ROOT / "docs" / "openapi.json", "--config", tmp_path / "config.json"]
    where = ["--meta", "none", "--output-path", tmp_path / "stranger"]
    ran = subprocess.run([*command, *paths, *where], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "WARNING" not in ran.stdout + ran.stderr
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name: importlib.import_module(f"stranger{name}")


def test_it_submits_a_job_and_waits_for_its_end(generated, url, token):
    models, jobs, tasks = generated(".models"), generated(".api.jobs"), generated(".api.tasks")
    client = generated("").AuthenticatedClient(base_url=url, token=token)
    create, retrieve, rows = (
        importlib.import_module(f"{jobs.__name__}.{name}")
        for name in ("jobs_create", "jobs_retrieve", "jobs_tasks_list")
    )
    shell = models.ShellPayloadRequest(cmd="echo from a stranger")
    body = models.JobSubmissionRequest("stranger", [models.ShellTaskRequest(shell)])

    job = create.sync(client=client, body=body)
    until = time.monotonic() + 60
    while job.state not in ("done", "failed", "cancelled") and time.monotonic() < until:
        time.sleep(0.2)
        job = retrieve.sync(job.id, client=client)

    assert (job.state, job.counts.done) == ("done", 1)
    (task,) = rows.sync(job.id, client=client).results
    assert (task.result_text, task.exit_code) == ("from a stranger\n", 0)
    log = importlib.import_module(f"{tasks.__name__}.tasks_log_retrieve")
    assert log.sync(task.id, client=client).data == "from a stranger\n"
    refusal = retrieve.sync(10**9, client=client)
    assert (type(refusal).__name__, refusal.code) == ("Problem", "not_found")
