"""What the views of both doors share."""

from collections.abc import Iterable
from typing import Any, TypeVar

from django.db.models import QuerySet
from django.http import Http404
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.plumbing import get_lib_doc_excludes
from rest_framework.exceptions import ParseError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import GenericViewSet

from dtsproject.errors import InvalidQuery, Refusal
from dtsproject.openapi import refused
from dtsproject.pagination import NewestFirst
from jobs import audit
from jobs.api.fields import StrictSerializer
from jobs.authentication import access

S = TypeVar("S", bound=StrictSerializer)
WRONG_STATE = refused(409, "wrong_state: nothing is in a state that allows it.")


class LengthRequired(Refusal):
    """A chunked body: Django would take it for an empty one."""

    status, code, title = 411, "length_required", "Length required"


class StrictFilter(DjangoFilterBackend):
    """Refuses parameters that are unknown, empty, given twice or not valid."""

    repeatable = ("status", "state")

    def filter_queryset(self, request: Request, queryset: QuerySet, view: Any) -> QuerySet:
        filterset = self.get_filterset(request, queryset, view)
        names = () if filterset is None else tuple(filterset.filters)
        check_parameters(request, [*names, *NewestFirst.parameters], self.repeatable)
        if filterset is None:
            return queryset
        if not filterset.is_valid():
            raise InvalidQuery({n: " ".join(e) for n, e in filterset.errors.items()})
        return filterset.qs


def check_parameters(request: Request, known: Iterable[str], repeatable: Iterable[str]) -> None:
    """Raises InvalidQuery for query parameters that are unknown, empty or given twice."""
    listed = ", ".join(sorted(known)) or "none"
    faults = {}
    for name, values in request.query_params.lists():
        if name not in known:
            faults[name] = f"there is no such parameter; there are {listed}"
        elif not all(values):
            faults[name] = "give a value, or leave it out"
        elif len(values) > 1 and name not in repeatable:
            faults[name] = "give it once"
    if faults:
        raise InvalidQuery(faults)


class ApiViewSet(GenericViewSet):
    """`scope` is what writing needs; `paged` marks actions that answer a list; the others know
    the query parameters in `query_parameters`; beside creating and changing, only actions with
    `takes_body` read the body. Actions set these by keyword."""

    http_method_names = ["get", "head", "post", "patch", "delete"]
    scope = "admin"
    paged = False
    query_parameters: tuple[str, ...] = ()
    takes_body = False
    filter_backends = [StrictFilter]
    filterset_class: Any = None
    pagination_class = NewestFirst
    lookup_value_converter = "int"

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not self.action:
            return  # the path does not have this method, which is answered next
        if "Transfer-Encoding" in request.headers:
            raise LengthRequired("Send the body whole, with Content-Length, not in chunks.")
        if request.method == "PATCH" and request.headers.get("Content-Length", "0") == "0":
            raise ParseError("Send what is to change, in a JSON object.")
        if not (self.paged or self.action == "list"):
            check_parameters(request, self.query_parameters, ())
        if request.method == "POST" and not (self.takes_body or self.action == "create"):
            StrictSerializer(data=request.data).is_valid(raise_exception=True)

    def get_object(self) -> Any:
        given = self.kwargs[self.lookup_field]
        found = self.get_queryset().filter(**{self.lookup_field: given}).first()
        if found is None:
            raise Http404
        return found

    def checked(self, serializer_class: type[S]) -> S:
        """The request's body, valid."""
        serializer = serializer_class(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return serializer

    def page(self, queryset: QuerySet, serializer: type[BaseSerializer]) -> Response:
        """The page of `queryset`, filtered, that the request asks for."""
        rows = self.paginate_queryset(self.filter_queryset(queryset))
        return self.get_paginated_response(serializer(rows, many=True).data)

    def record(self, action: str, target: str, **detail: Any) -> None:
        source = self.request.META.get("REMOTE_ADDR", "")
        audit.record(access(self.request).name, action, [target], source, **detail)


def undocumented() -> list[type]:
    """Classes whose docstrings are for us, not for the OpenAPI document of their subclasses."""
    return [*get_lib_doc_excludes(), ApiViewSet, StrictSerializer]
