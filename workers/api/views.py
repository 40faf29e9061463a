"""The workers' door: register, claim, heartbeat, report, log, leave; and for people, drain."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpResponseBase
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from dtsproject.conf import conf
from dtsproject.errors import Refusal
from dtsproject.openapi import refused
from dtsproject.parking import PARK
from jobs import logs, queue
from jobs.api.base import ApiViewSet, S
from jobs.authentication import access
from jobs.marks import Marks
from jobs.models import Lease
from jobs.specs import Ending
from jobs.throttles import Workers
from workers import registry, waiting
from workers.api.filters import WorkerFilter
from workers.api.serializers import (
    BeatAnswer,
    Boot,
    Claim,
    ClaimAnswer,
    Delivery,
    Exchange,
    ExchangeAnswer,
    Heartbeat,
    LogAnswer,
    LogParts,
    Report,
    ReportAnswer,
    Terms,
    WorkerRegistration,
    WorkerSerializer,
)
from workers.models import State, Worker

SUPERSEDED = refused(409, "worker_superseded: another boot holds the worker's name.")
WRONG_STATE = refused(409, "wrong_state: the worker is not in a state that allows it.")


class NotThisWorker(Refusal):
    status, code, title = 403, "not_this_worker", "The token is for another worker"


class LeaseLost(Refusal):
    code, title = "lease_lost", "The lease was lost"


_of_thread = threading.local()


def marks_of_thread() -> Marks:
    """Up to where the claims of this thread, of whichever worker, have read the lanes."""
    if not hasattr(_of_thread, "marks"):
        _of_thread.marks = Marks()
    return _of_thread.marks


def check_bound(request: Request, name: str) -> None:
    """Raises NotThisWorker where the token is for another worker than `name`."""
    bound = access(request).worker_name
    if bound not in ("", name):
        raise NotThisWorker(f"This token is for worker {bound}, not {name}.")


def verdicts(endings: Sequence[Ending], states: Mapping[int, str]) -> list[dict[str, Any]]:
    """What became of each ending, given the new states of those that were accepted."""
    return [
        {
            "task_id": ending.task_id,
            "fencing_token": ending.fencing_token,
            "accepted": ending.task_id in states,
            "status": states.get(ending.task_id),
        }
        for ending in endings
    ]


@extend_schema_view(
    list=extend_schema(summary="List workers, newest first"),
    retrieve=extend_schema(summary="Show a worker"),
)
class WorkerViewSet(RetrieveModelMixin, ListModelMixin, ApiViewSet):
    queryset = Worker.objects.all()
    serializer_class = WorkerSerializer
    filterset_class = WorkerFilter
    scope = "work"

    def get_queryset(self) -> QuerySet:
        """Each with how many leases it holds, counted by index for the rows of a page only."""
        held = Lease.objects.filter(worker_id=OuterRef("pk")).order_by()
        number = held.values("worker_id").annotate(n=Count("*")).values("n")
        return Worker.objects.annotate(running=Coalesce(Subquery(number), 0))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """A token bound to a worker speaks for no other. Raises NotThisWorker."""
        super().initial(request, *args, **kwargs)
        bound = access(request).worker_name
        if not bound or self.scope != "work" or request.method != "POST" or "pk" not in kwargs:
            return
        if not Worker.objects.filter(pk=kwargs["pk"], name=bound).exists():
            raise NotThisWorker(f"This token is for worker {bound} alone.")

    def get_throttles(self) -> list:
        for_workers = self.scope == "work" and self.request.method == "POST"
        return [Workers()] if for_workers else super().get_throttles()

    # -- for workers -------------------------------------------------------------------------

    @extend_schema(
        summary="Register a worker",
        request=WorkerRegistration,
        responses={201: Terms} | refused(409, "worker_name_taken: a live worker has this name."),
    )
    def create(self, request: Request) -> Response:
        registration = self.checked(WorkerRegistration).to_registration()
        check_bound(request, registration.name)
        worker = registry.register(registration)
        names = ("lease_seconds", "heartbeat_seconds", "kill_grace_seconds")
        terms = {name: getattr(conf(), name) for name in names}
        answer = {"id": worker.pk, "name": worker.name, "state": worker.state, **terms}
        return Response(Terms(answer).data, status=201)

    @extend_schema(
        summary="Claim queued tasks",
        request=Claim,
        responses={200: ClaimAnswer} | SUPERSEDED,
    )
    @action(detail=True, methods=["post"], takes_body=True)
    def claim(self, request: Request, pk: int) -> Response:
        asked = self.checked(Claim).validated_data
        claim = partial(queue.claim, worker_id=pk, boot_id=asked["boot_id"], limit=asked["limit"])
        # What was given back may lie before the marks.
        tasks = claim(marks=marks_of_thread()) or claim()
        if not tasks:  # nothing to do, or not for this boot
            self.check_boot(asked["boot_id"])
        return Response({"tasks": [task._asdict() for task in tasks]})

    @extend_schema(
        summary="Renew the leases of the tasks it still holds",
        description="Of a worker that holds nothing, with `wait_seconds`, the answer waits: "
        "`ready` is true once there may be work for it, false when the time is over; it is null "
        "where the answer did not wait. What is renewed is renewed when the request comes in.",
        request=Heartbeat,
        responses={200: BeatAnswer} | SUPERSEDED,
    )
    @action(detail=True, methods=["post"], takes_body=True)
    def heartbeat(self, request: Request, pk: int) -> HttpResponseBase:
        asked = self.checked(Heartbeat).validated_data
        boot_id, draining = asked["boot_id"], asked.get("draining", False)
        held = {task["task_id"]: task["fencing_token"] for task in asked["held"]}
        try:
            beat = registry.heartbeat(pk, boot_id, held, draining=draining)
        except registry.Superseded:
            self.check_boot(boot_id)  # there may be no such worker
            raise
        park, seconds = request.META.get(PARK), asked.get("wait_seconds", 0)
        only_waits = seconds and not held and beat.state == State.ONLINE
        if park and only_waits and waiting.room.has_place():
            return waiting.put_off(park, pk, asdict(beat), seconds)
        return Response(asdict(beat))

    @extend_schema(
        summary="Report attempts that ended",
        description="A report repeated is answered alike and recorded once.",
        request=Report,
        responses={200: ReportAnswer}
        | refused(409, "lease_lost: none of the leases was still held; or worker_superseded."),
    )
    @action(detail=True, methods=["post"], takes_body=True)
    def report(self, request: Request, pk: int) -> Response:
        endings = self.from_boot(Report).to_endings()
        states = queue.report(endings, worker_id=pk)
        results = verdicts(endings, states)
        if not states:
            raise LeaseLost(
                "None of these tasks is held under the fencing token reported; nothing changed.",
                results=results,
            )
        return Response({"results": results})

    @extend_schema(
        summary="Report and claim in one",
        description="As report and claim, in one commit; what was not held is in the results.",
        request=Exchange,
        responses={200: ExchangeAnswer} | SUPERSEDED,
    )
    @action(detail=True, methods=["post"], takes_body=True)
    def exchange(self, request: Request, pk: int) -> Response:
        asked = self.from_boot(Exchange)
        endings, limit = asked.to_endings(), asked.validated_data["limit"]
        boot_id = asked.validated_data["boot_id"]
        states, tasks = registry.exchange(pk, boot_id, endings, limit, marks_of_thread())
        return Response(
            {"results": verdicts(endings, states), "tasks": [task._asdict() for task in tasks]}
        )

    @extend_schema(
        summary="Deliver what a former start of the worker left",
        description="For what it kept on its disk; before the worker registers anew.",
        request=Delivery,
        responses={200: ReportAnswer} | SUPERSEDED,
    )
    @action(detail=False, methods=["post"], takes_body=True)
    def deliver(self, request: Request) -> Response:
        asked = self.checked(Delivery)
        name, boot_id = asked.validated_data["name"], asked.validated_data["boot_id"]
        check_bound(request, name)
        if not Worker.objects.filter(name=name, boot_id=boot_id).exists():
            raise registry.Superseded(f"This boot does not hold the name {name} any more")
        endings = asked.to_endings()
        states = registry.deliver(name, endings, asked.to_parts())
        return Response({"results": verdicts(endings, states)})

    @extend_schema(
        summary="Store output of held tasks",
        request=LogParts,
        responses={200: LogAnswer} | SUPERSEDED,
    )
    @action(detail=True, methods=["post"], takes_body=True)
    def log(self, request: Request, pk: int) -> Response:
        parts = self.from_boot(LogParts).to_parts()
        return Response({"stored": logs.append(pk, parts)})

    @extend_schema(summary="Leave in good order", request=Boot, responses={204: None} | SUPERSEDED)
    @action(detail=True, methods=["post"], takes_body=True)
    def leave(self, request: Request, pk: int) -> Response:
        registry.leave(pk, self.from_boot(Boot).validated_data["boot_id"])
        return Response(status=204)

    def from_boot(self, serializer_class: type[S]) -> S:
        """The valid request of the boot that holds the worker's name. Raises Superseded."""
        serializer = self.checked(serializer_class)
        self.check_boot(serializer.validated_data["boot_id"])
        return serializer

    def check_boot(self, given: UUID) -> None:
        """Raises Superseded, or Http404 where there is no such worker."""
        boots = Worker.objects.filter(pk=self.kwargs["pk"]).values_list("boot_id", flat=True)
        boot_id = boots.first()
        if boot_id is None:
            raise Http404
        if boot_id != given:
            raise registry.Superseded("Start the worker again: this boot no longer holds its name")

    # -- for people --------------------------------------------------------------------------

    @extend_schema(
        summary="Drain a worker",
        description="It finishes what it runs, claims nothing more, and leaves.",
        request=None,
        responses={200: WorkerSerializer} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def drain(self, request: Request, pk: int) -> Response:
        return self.operate("drain", registry.drain)

    @extend_schema(
        summary="Cordon a worker",
        description="It claims nothing more until uncordoned.",
        request=None,
        responses={200: WorkerSerializer} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def cordon(self, request: Request, pk: int) -> Response:
        return self.operate("cordon", registry.cordon)

    @extend_schema(
        summary="Let a cordoned worker claim again",
        request=None,
        responses={200: WorkerSerializer} | WRONG_STATE,
    )
    @action(detail=True, methods=["post"], scope="operate")
    def uncordon(self, request: Request, pk: int) -> Response:
        return self.operate("uncordon", registry.uncordon)

    def operate(self, name: str, verb: Callable[[QuerySet], int]) -> Response:
        worker = self.get_object()
        with transaction.atomic():
            if not verb(Worker.objects.filter(pk=worker.pk)):
                state = self.get_object().state
                raise queue.WrongState(
                    f"Worker {worker.name} is {state}: it cannot {name}.", state=state
                )
            self.record(name, f"worker {worker.pk}")
        return Response(WorkerSerializer(self.get_object()).data)
