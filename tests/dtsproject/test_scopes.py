"""Every route, with the one scope that opens it. A route without a row is a failure."""

import uuid
from collections.abc import Iterator

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from jobs import operations, queue
from jobs.models import Operation
from jobs.models.access import SCOPES
from tests.api import Client, problem
from tests.helpers import register, scheduled, submit

pytestmark = pytest.mark.django_db
OPEN = ""  # no token needed
SCOPE_OF = {
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": "read",
    "GET /docs": OPEN,
    "GET /api/schema": OPEN,
    "GET /api/v1": "read",
    "GET /api/v1/stats": "read",
    "GET /api/v1/jobs": "read",
    "POST /api/v1/jobs": "submit",
    "GET /api/v1/jobs/<int:pk>": "read",
    "GET /api/v1/jobs/<int:pk>/tasks": "read",
    "POST /api/v1/jobs/<int:pk>/cancel": "operate",
    "POST /api/v1/jobs/<int:pk>/retry": "operate",
    "POST /api/v1/jobs/<int:pk>/prioritise": "operate",
    "POST /api/v1/jobs/<int:pk>/pause": "operate",
    "POST /api/v1/jobs/<int:pk>/resume": "operate",
    "POST /api/v1/jobs/<int:pk>/clone": "submit",
    "GET /api/v1/tasks": "read",
    "GET /api/v1/tasks/<int:pk>": "read",
    "GET /api/v1/tasks/<int:pk>/attempts": "read",
    "GET /api/v1/tasks/<int:pk>/log": "read",
    "POST /api/v1/tasks/<int:pk>/cancel": "operate",
    "POST /api/v1/tasks/<int:pk>/retry": "operate",
    "POST /api/v1/tasks/<int:pk>/prioritise": "operate",
    "GET /api/v1/tasks/<int:pk>/why": "read",
    "GET /api/v1/queues": "read",
    "GET /api/v1/queues/<str:name>": "read",
    "PATCH /api/v1/queues/<str:name>": "operate",
    "POST /api/v1/queues/<str:name>/pause": "operate",
    "POST /api/v1/queues/<str:name>/resume": "operate",
    "GET /api/v1/operations": "read",
    "POST /api/v1/operations": "operate",
    "GET /api/v1/operations/<int:pk>": "read",
    "POST /api/v1/operations/<int:pk>/cancel": "operate",
    "GET /api/v1/limits": "read",
    "GET /api/v1/limits/<path:key>": "read",
    "PUT /api/v1/limits/<path:key>": "operate",
    "DELETE /api/v1/limits/<path:key>": "operate",
    "GET /api/v1/schedules": "read",
    "POST /api/v1/schedules": "submit",
    "GET /api/v1/schedules/<int:pk>": "read",
    "PATCH /api/v1/schedules/<int:pk>": "submit",
    "DELETE /api/v1/schedules/<int:pk>": "operate",
    "POST /api/v1/schedules/<int:pk>/pause": "operate",
    "POST /api/v1/schedules/<int:pk>/resume": "operate",
    "POST /api/v1/schedules/<int:pk>/fire": "operate",
    "GET /api/v1/schedules/<int:pk>/firings": "read",
    "GET /api/v1/workers": "read",
    "POST /api/v1/workers": "work",
    "GET /api/v1/workers/<int:pk>": "read",
    "POST /api/v1/workers/<int:pk>/claim": "work",
    "POST /api/v1/workers/deliver": "work",
    "POST /api/v1/workers/<int:pk>/exchange": "work",
    "POST /api/v1/workers/<int:pk>/heartbeat": "work",
    "POST /api/v1/workers/<int:pk>/report": "work",
    "POST /api/v1/workers/<int:pk>/log": "work",
    "POST /api/v1/workers/<int:pk>/leave": "work",
    "POST /api/v1/workers/<int:pk>/drain": "operate",
    "POST /api/v1/workers/<int:pk>/cordon": "operate",
    "POST /api/v1/workers/<int:pk>/uncordon": "operate",
}
GUARDED = [route for route, scope in SCOPE_OF.items() if scope]
# The admin has Django's permissions; the catch-all under /api answers 404 to everybody.
NOT_OURS = ("/admin/", "/^api")


@pytest.fixture(autouse=True)
def nobody_without_token(settings):
    settings.DTS = {**settings.DTS, "ANONYMOUS_ACCESS": "off"}


def routes(patterns, prefix: str = "/") -> Iterator[str]:
    for entry in patterns:
        path = prefix + str(entry.pattern)
        if path.startswith(NOT_OURS):
            continue
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, path)
        elif isinstance(entry, URLPattern):
            yield from (f"{method.upper()} {path}" for method in methods(entry.callback))


def methods(view) -> set[str]:
    """Those that the view answers, beside HEAD and OPTIONS."""
    if actions := getattr(view, "actions", None):
        return set(actions) - {"head"}  # which Django REST framework adds by itself
    kind = getattr(view, "cls", None) or getattr(view, "view_class", None)
    if kind is None:
        return {"get"}  # a function behind problems.safe
    return {m for m in kind.http_method_names if hasattr(kind, m)} - {"head", "options"}


CANCEL_ALL = {"action": "cancel", "target": "tasks", "filter": {}}


def call(client, route):
    """The route's answer for something that exists."""
    method, path = route.split()
    (task,) = submit("true")
    pk = {"jobs": task.job_id, "tasks": task.pk, "workers": register(f"w{uuid.uuid4()}").pk}
    pk["schedules"] = scheduled(name=f"s{task.pk}").pk
    pk["operations"] = operations.begin(Operation(**CANCEL_ALL)).pk
    for kind, number in pk.items():
        path = path.replace(f"{kind}/<int:pk>", f"{kind}/{number}")
    path = path.replace("<str:name>", task.queue)
    if "<path:key>" in path:
        path = path.replace("<path:key>", queue.limit_key("db/1", {"max_running": 1})[0].key)
    return client.generic(method, path, b"", content_type="application/json")


def test_every_route_has_a_row():
    assert set(routes(get_resolver().url_patterns)) == set(SCOPE_OF)


@pytest.mark.parametrize("route", [route for route, scope in SCOPE_OF.items() if not scope])
def test_what_is_open_needs_no_token(route):
    assert call(Client(), route).status_code == 200


@pytest.mark.parametrize("route", GUARDED)
def test_nothing_else_opens_without_a_token(route):
    problem(call(Client(), route), 401, "not_authenticated")


@pytest.mark.parametrize("route", GUARDED)
@pytest.mark.parametrize("scope", SCOPES)
def test_one_scope_opens_a_route_and_no_other(route, scope):
    answer = call(Client(scope), route)
    if scope == SCOPE_OF[route]:
        assert answer.status_code not in (401, 403, 404, 405, 500)
    else:
        document = problem(answer, 403, "scope_missing")
        assert f"the scope {SCOPE_OF[route]};" in document["detail"]
