"""Probes and metrics."""

from collections.abc import Iterator

from django.db import DEFAULT_DB_ALIAS, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from dtsproject.problems import safe, unavailable
from jobs.models import Blocked, Deferred, Lease, Ready, Waiting
from workers.models import State, Worker

COUNTED_UP_TO = 100_000


@safe
def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers. Asks nobody else: a liveness probe must not fail for the database."""
    return JsonResponse({"status": "ok"})


@safe
def readyz(request: HttpRequest) -> HttpResponse:
    """The database answers and has all migrations: requests can be served."""
    # What the database raises when it is away becomes a 503 in problems.server_error.
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    if not migrations_applied():
        return unavailable(request, "Migrations are missing: run `manage.py migrate`.")
    return JsonResponse({"status": "ready"})


def migrations_applied() -> bool:
    """Whether none is missing. Once true it stays so for this process's code."""
    if not _seen_applied:
        executor = MigrationExecutor(connection)
        if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
            _seen_applied.append(DEFAULT_DB_ALIAS)
    return bool(_seen_applied)


_seen_applied: list[str] = []


class Figures(Collector):
    """Gauges taken from the narrow tables when they are asked for, so that every process of the
    server gives the same answer. Never a scan of `tasks`; counts stop at COUNTED_UP_TO."""

    def collect(self) -> Iterator[Metric]:
        tasks = GaugeMetricFamily(
            "dts_tasks",
            f"Tasks that have not ended, by state; counted up to {COUNTED_UP_TO}.",
            labels=["state"],
        )
        tables = {
            "pending": Waiting,
            "deferred": Deferred,
            "blocked": Blocked,
            "queued": Ready,
            "in_progress": Lease,
        }
        for state, table in tables.items():
            tasks.add_metric([state], table._default_manager.values("pk")[:COUNTED_UP_TO].count())
        yield tasks
        yield from self.of_workers()

    def of_workers(self) -> Iterator[Metric]:
        counted = Worker.objects.values("state").annotate(n=Count("*")).values_list("state", "n")
        found = dict(counted)
        workers = GaugeMetricFamily("dts_workers", "Workers by state.", labels=["state"])
        for state in State.values:
            workers.add_metric([state], found.get(state, 0))
        yield workers
        online = Worker.objects.live().filter(state=State.ONLINE)
        slots = sum(online.values_list("slots", flat=True))
        yield GaugeMetricFamily("dts_slots", "Slots of live online workers.", value=slots)


class TextRenderer(BaseRenderer):
    media_type = "text/plain"
    format = "txt"


class Metrics(APIView):
    """For Prometheus; needs the scope `read`."""

    renderer_classes = [TextRenderer]
    schema = None

    def get(self, request: Request) -> HttpResponse:
        registry = CollectorRegistry()
        registry.register(Figures())
        return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
