"""What a person does and its entry in the audit trail are kept together, or neither is."""

import pytest
from django.db import IntegrityError, connection

from jobs.models import AuditEvent, Job
from tests.api import Client, problem
from tests.helpers import register, submit


@pytest.fixture
def untouched(db):
    """A task and a worker while nothing can be recorded; afterwards both must be as they were."""
    (task,), worker = submit("true"), register()
    with connection.cursor() as cursor:
        table = AuditEvent._meta.db_table
        cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT shut CHECK (false) NOT VALID")
    yield task, worker
    task.refresh_from_db()
    worker.refresh_from_db()
    assert (task.status, worker.state) == ("pending", "online")
    assert Job.objects.get().cancelled_at is None


def test_at_the_api(untouched):
    task, worker = untouched
    client = Client("operate")
    for path in (f"tasks/{task.pk}", f"jobs/{task.job_id}"):
        problem(client.send(f"/api/v1/{path}/cancel"), 500, "internal_error")
    problem(client.send(f"/api/v1/workers/{worker.pk}/drain"), 500, "internal_error")


def test_in_the_admin(untouched, admin_client):
    task, worker = untouched
    for url, action, pk in (
        ("/admin/jobs/task/", "cancel", task.pk),
        ("/admin/jobs/job/", "cancel", task.job_id),
        ("/admin/workers/worker/", "drain", worker.pk),
    ):
        with pytest.raises(IntegrityError):
            admin_client.post(url, {"action": action, "_selected_action": [str(pk)]})
