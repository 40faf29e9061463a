"""What every page of the admin shares, and the one seam to django-unfold."""

import re
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from unfold import paginator
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter, TextFilter
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanWidget,
)

from dtsproject.bounded import newest

__all__ = [
    "AdminPasswordChangeForm",
    "ChoicesDropdownFilter",
    "DropdownFilter",
    "ModelAdmin",
    "OpsAdmin",
    "ReadOnlyAdmin",
    "TextFilter",
    "UnfoldAdminCheckboxSelectMultipleWidget",
    "UnfoldAdminTextareaWidget",
    "UnfoldBooleanWidget",
    "UserChangeForm",
    "UserCreationForm",
    "add_fragment",
    "selected",
]

WINDOW = 100_000
DEEPEST_PAGE = 200
NOT_FILTERS = {"q", "p", "o", "e", "all", "_popup", "_to_field", "_changelist_filters"}


class InfinitePaginator(paginator.InfinitePaginator):
    """Counts nothing, and ends where an OFFSET becomes costly: older rows need a filter.

    unfold's header shows no number of results for a paginator of this very name.
    """

    @property
    def count(self) -> int:
        return DEEPEST_PAGE * self.per_page


class OpsAdmin(ModelAdmin):
    """Lists that stay fast over millions of rows, found by `name` or `key:value` searches.

    `qualifiers` maps a search key to a lookup, or to a function (queryset, value) -> queryset.
    A filter or key that no index serves sees the newest WINDOW rows, and the page says so:
    `served` names those that an index serves, `selective` those that leave few rows besides.
    """

    ordering: tuple[str, ...] = ("-id",)
    sortable_by = ()
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = InfinitePaginator
    list_disable_select_all = True
    list_filter_submit = True
    list_before_template = "admin/dts/list_before.html"
    empty_value_display = "-"

    search_fields = ("pk",)
    bare: str = "name__startswith"
    qualifiers: dict[str, str | Callable] = {}
    served: frozenset[str] = frozenset()
    selective: frozenset[str] = frozenset()
    empty_hint = ""

    def keys(self, term: str) -> dict[str, str]:
        """A search as {key: value}: `id` for a bare number, `` for other bare words."""
        found, bare = {}, []
        for word in term.split():
            key, _, value = word.partition(":")
            if value and key in {"id", *self.qualifiers}:
                found[key] = value
            else:
                bare.append(word)
        if bare:
            text = " ".join(bare)
            found["id" if re.fullmatch(r"#?\d+", text) else ""] = text.removeprefix("#")
        return found

    def windowed(self, request: HttpRequest) -> bool:
        names = {name for name, value in request.GET.items() if value} - NOT_FILTERS
        names |= self.keys(request.GET.get("q", "")).keys()
        return bool(names - self.served) and not names & (self.selective | {"id"})

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet, search_term: str
    ) -> tuple[models.QuerySet, bool]:
        lookups = {"id": "pk", "": self.bare, **self.qualifiers}
        for key, value in self.keys(search_term).items():
            lookup = lookups[key]
            try:
                queryset = (
                    lookup(queryset, value)
                    if callable(lookup)
                    else queryset.filter(**{lookup: value})
                )
            except ValueError:
                messages.warning(request, f"{key}:{value} is not a number; nothing is found by it.")
                queryset = queryset.none()
        if self.windowed(request):
            queryset = newest(queryset, WINDOW)
        return queryset, False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        window = f"{WINDOW:,}" if self.windowed(request) else ""
        return super().changelist_view(request, {"window": window, **(extra_context or {})})


class ReadOnlyAdmin(OpsAdmin):
    """For what the machine writes: seen, never edited. What people may do to it are actions.

    An action is a POST to the list, from the list or from a button of the object's page; there
    `fitting` says which of them make sense for the object.
    """

    dangerous: frozenset[str] = frozenset()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Whoever may change a model's rows may run its actions."""
        opts = self.opts
        return request.user.has_perm(f"{opts.app_label}.change_{opts.model_name}")

    def fitting(self, obj: Any) -> set[str]:
        return set()

    def page(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """What the object's template shows besides the object."""
        return {}

    def render_change_form(
        self, request: HttpRequest, context: dict, *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        if obj is not None:
            fitting = self.get_actions(request).keys() & self.fitting(obj)
            context["page_actions"] = [
                {
                    "name": name,
                    "label": getattr(self, name).short_description,
                    "dangerous": name in self.dangerous,
                }
                for name in self.actions
                if name in fitting
            ]
            context |= self.page(request, obj)
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def answer(self, request: HttpRequest, sentence: str) -> HttpResponse | None:
        """Says what an action did, on the page it was started from."""
        self.message_user(request, sentence, messages.SUCCESS)
        if "_page" not in request.POST:
            return None
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        return redirect(reverse(name, args=selected(request)[:1]))


def selected(request: HttpRequest) -> list[int]:
    """The ids ticked in a list. Not its queryset: a task that moved on since the page was drawn
    has left the filter, and is meant all the same."""
    ids = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
    return [int(pk) for pk in ids if re.fullmatch(r"\d{1,18}", pk)]


def add_fragment(route: str, view: Callable[..., HttpResponse], name: str) -> None:
    """Adds a part of a page, which htmx polls, to the admin site: for staff only."""
    site: Any = admin.site
    guarded = site.admin_view(view)

    def fragment(request: HttpRequest) -> HttpResponse:
        if "HX-Request" in request.headers and not site.has_permission(request):
            # The session ended: the whole page is to reload, not the sign-in form to appear in it.
            return HttpResponse(headers={"HX-Refresh": "true"})
        return guarded(request)

    pages: list[URLPattern] = [path(route, fragment, name=name)]
    site.extra_urls = lambda: pages
