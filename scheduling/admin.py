"""The overview, which is the admin's first page, and the way to the others."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from dtsproject.admin_base import add_fragment
from scheduling import schedule_admin
from scheduling.figures import figures

__all__ = ["dashboard", "navigation", "schedule_admin"]

GROUPS = {
    "Work": (
        ("Jobs", "inventory_2", "jobs_job", "jobs.view_job"),
        ("Tasks", "task_alt", "jobs_task", "jobs.view_task"),
        ("Attempts", "replay", "jobs_attempt", "jobs.view_attempt"),
        ("Operations", "checklist", "jobs_operation", "jobs.view_operation"),
        ("Schedules", "event_repeat", "scheduling_schedule", "scheduling.view_schedule"),
        ("Queues", "stacks", "jobs_queue", "jobs.view_queue"),
        ("Limits", "speed", "jobs_limit", "jobs.view_limit"),
    ),
    "Fleet": (("Workers", "dns", "workers_worker", "workers.view_worker"),),
    "Access": (
        ("Tokens", "key", "jobs_token", "jobs.view_token"),
        ("Users", "person", "auth_user", "auth.view_user"),
        ("Groups", "group", "auth_group", "auth.view_group"),
        ("Audit events", "history", "jobs_auditevent", "jobs.view_auditevent"),
    ),
}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar: what this person may see."""
    overview = {"title": "Overview", "icon": "monitoring", "link": reverse("admin:index")}
    groups: list[dict[str, Any]] = [{"items": [overview]}]
    for title, pages in GROUPS.items():
        items = [
            {"title": name, "icon": icon, "link": reverse(f"admin:{model}_changelist")}
            for name, icon, model, permission in pages
            if request.user.has_perm(permission)
        ]
        if items:
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the first page shows besides unfold's own context."""
    return {**context, **overview_context(request), "title": "Overview"}


def overview_context(request: HttpRequest) -> dict[str, Any]:
    seen = request.user.has_perm("jobs.view_task")
    return {"figures": figures() if seen else None}


def overview(request: HttpRequest) -> HttpResponse:
    """The part of the first page that keeps itself up to date."""
    return render(request, "admin/dts/overview.html", overview_context(request))


add_fragment("overview/", overview, "overview")
