from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dtsproject import show
from dtsproject.admin_base import DropdownFilter, ReadOnlyAdmin, selected
from dtsproject.bounded import newest
from jobs.admin import wording
from jobs.admin.filters import RECENT_ATTEMPTS
from jobs.models import Attempt, AuditEvent, Lease
from workers import registry
from workers.models import State, Worker
from workers.presence import condition, with_condition

SHOWN_LEASES = 200
SHOWN_ATTEMPTS = 50
SHOWN_EVENTS = 20


class StateFilter(DropdownFilter):
    title = parameter_name = "state"
    all_option = ["", "All that have not left"]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return State.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value():
            return queryset.filter(state=self.value())
        return queryset.exclude(state=State.GONE)


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ("condition", "name", "heard", "busy_slots", "serves", "can", "version", "host")
    list_display_links = ("name",)
    list_filter = (StateFilter,)
    search_help_text = "The beginning of a worker's name, or host:node7"
    qualifiers = {"host": "host"}
    ordering: tuple[str, ...] = ("name", "-id")
    actions = ("drain", "cordon", "uncordon")
    dangerous = frozenset({"drain"})
    list_after_template = "admin/dts/slots_legend.html"
    change_form_template = "admin/dts/worker.html"
    empty_hint = "manage.py run_worker"

    def windowed(self, request: HttpRequest) -> bool:
        return False  # workers are few

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        return with_condition(super().get_queryset(request))

    @admin.display(description="State")
    def condition(self, worker: Any) -> SafeString:
        return show.badge(condition(worker))

    @admin.display(description="Heartbeat")
    def heard(self, worker: Any) -> SafeString:
        return format_html(
            '<span title="{}">{} ago</span>',
            show.stamp(worker.last_heartbeat),
            show.duration(worker.silence),
        )

    @admin.display(description="Slots busy")
    def busy_slots(self, worker: Any) -> SafeString:
        idle = max(worker.slots - worker.busy, 0)
        drawn = show.bar([("in_progress", worker.busy), ("idle", idle)])
        return format_html(
            '<span class="dts-far">{} {}/{}</span>', drawn, worker.busy, worker.slots
        )

    @admin.display(description="Queues")
    def serves(self, worker: Worker) -> str:
        return ", ".join(worker.queues) or "all"

    @admin.display(description="Capabilities")
    def can(self, worker: Worker) -> str:
        return ", ".join(worker.offers) or "-"

    # -- a worker's page ---------------------------------------------------------------------

    def fitting(self, obj: Any) -> set[str]:
        fits = {State.ONLINE: {"drain", "cordon"}, State.CORDONED: {"drain", "uncordon"}}
        return fits.get(State(obj.state), set())

    def page(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        leases = Lease.objects.filter(worker_id=obj.pk).select_related("task")
        attempts = newest(Attempt.objects.filter(worker_id=obj.pk), RECENT_ATTEMPTS)
        return {
            "worker": obj,
            "title": f"Worker {obj.name}",
            "state": condition(obj),
            "slots_drawn": self.busy_slots(obj),
            "leases": leases.order_by("claimed_at")[:SHOWN_LEASES],
            "attempts": attempts.select_related("task").order_by("-pk")[:SHOWN_ATTEMPTS],
            "among": RECENT_ATTEMPTS,
            "events": AuditEvent.objects.filter(target=f"worker {obj.pk}").order_by("-id")[
                :SHOWN_EVENTS
            ],
        }

    # -- what people may do ------------------------------------------------------------------

    @admin.action(description="Drain", permissions=["act"])
    def drain(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        return self._ask(request, "drain", "Asked {} to finish and leave", registry.drain)

    @admin.action(description="Cordon", permissions=["act"])
    def cordon(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        return self._ask(request, "cordon", "Cordoned {}: no new tasks", registry.cordon)

    @admin.action(description="Uncordon", permissions=["act"])
    def uncordon(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        return self._ask(request, "uncordon", "Uncordoned {}: new tasks again", registry.uncordon)

    def _ask(self, request: HttpRequest, action: str, said: str, verb: Any) -> HttpResponse | None:
        ids = selected(request)
        with wording.recorded(request, action, [f"worker {pk}" for pk in ids]):
            asked = verb(Worker.objects.filter(pk__in=ids))
        sentence = said.format(wording.plural(asked, "worker"))
        if left := len(ids) - asked:
            sentence += f"; {left} could not be, being in another state"
        return self.answer(request, sentence + ".")
