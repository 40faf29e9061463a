"""`http_prepare N`: queues the N waiting tasks, registers a worker, issues its token.

Prints JSON: [path of the claim, its body, the token].
"""

import json
import sys
import uuid

import django

django.setup()

from jobs import queue  # noqa: E402 - needs django.setup() first
from jobs.models import Lane, Token  # noqa: E402 - needs django.setup() first
from workers import registry  # noqa: E402 - needs django.setup() first

tasks = int(sys.argv[1])
queue.promote({lane.pk: tasks for lane in Lane.objects.all()}, batch=tasks)
boot_id = uuid.uuid4()
worker = registry.register(
    registry.Registration(name="bench", boot_id=boot_id, machine_id="bench", slots=10)
)
_, token = Token.issue("bench", ["work"])
path = f"api/v1/workers/{worker.pk}/claim"
print(json.dumps([path, json.dumps({"boot_id": str(boot_id), "limit": 10}), token]))
