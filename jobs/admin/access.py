from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dtsproject import show
from dtsproject.admin_base import (
    AdminPasswordChangeForm,
    ModelAdmin,
    ReadOnlyAdmin,
    UnfoldAdminCheckboxSelectMultipleWidget,
    UserChangeForm,
    UserCreationForm,
    selected,
)
from jobs import audit
from jobs.admin import wording
from jobs.models import AuditEvent, Token
from jobs.models.access import SCOPES

MEANINGS = {
    "read": "read: see jobs, tasks, workers and their output",
    "submit": "submit: submit jobs, make schedules",
    "operate": "operate: cancel, retry, pause, limit, drain and cordon",
    "work": "work: be a worker, that is claim and report tasks",
    "admin": "admin: nothing so far",
}


def scopes_field(user: Any) -> forms.MultipleChoiceField:
    """A checkbox for each scope that `user` may give away: `admin` is for superusers to give."""
    scopes = [scope for scope in SCOPES if user.is_superuser or scope != "admin"]
    return forms.MultipleChoiceField(
        choices=[(scope, MEANINGS[scope]) for scope in scopes],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="What its bearer may do",
    )


class TokenForm(forms.ModelForm):
    class Meta:
        model = Token
        fields = ("name", "scopes", "worker_name", "expires_at")

    def clean_expires_at(self) -> Any:
        expires_at = self.cleaned_data["expires_at"]
        if expires_at and expires_at <= timezone.now():
            raise forms.ValidationError("Choose a time to come, or none for a token without end.")
        return expires_at

    def clean(self) -> dict[str, Any]:
        given = self.cleaned_data
        if given.get("worker_name") and "work" not in given.get("scopes", ()):
            raise forms.ValidationError({"worker_name": "Only the scope work lets it be a worker."})
        return given


@admin.register(Token)
class TokenAdmin(ReadOnlyAdmin):
    form = TokenForm
    list_display = (
        "state",
        "name",
        "prefix",
        "scopes",
        "worker_name",
        "owner",
        "created",
        "used",
        "expires",
    )
    list_display_links = ("name",)
    list_select_related = ("owner",)
    search_help_text = "The beginning of a token's name, or prefix:1a2b3c4d"
    qualifiers = {"prefix": "prefix"}
    actions = ("revoke",)
    dangerous = frozenset({"revoke"})
    change_form_template = "admin/dts/token.html"
    empty_hint = "manage.py token create --help, or the button above"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.add_token")

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "scopes":
            return scopes_field(request.user)
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Token, form: Any, change: bool) -> None:
        with transaction.atomic():
            token, text = Token.issue(
                obj.name,
                obj.scopes,
                obj.expires_at,
                owner=request.user,  # type: ignore[arg-type]
                worker_name=obj.worker_name,
            )
            source = request.META.get("REMOTE_ADDR") or ""
            audit.record(request.user.get_username(), "create", [f"token {token.pk}"], source)
        obj.pk, obj.prefix = token.pk, token.prefix
        messages.warning(
            request,
            format_html("Copy it now, it is not shown again: <code>{}</code>", text),
        )

    def fitting(self, obj: Token) -> set[str]:
        return set() if obj.revoked_at else {"revoke"}

    def page(self, request: HttpRequest, obj: Token) -> dict[str, Any]:
        return {"token": obj, "title": f"Token {obj.name}", "state": obj.state}

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[Token]) -> HttpResponse | None:
        ids = selected(request)
        valid = Token.objects.filter(pk__in=ids, revoked_at=None)
        with wording.recorded(request, "revoke", [f"token {pk}" for pk in ids]):
            revoked = valid.update(revoked_at=Now())
        sentence = f"Revoked {wording.plural(revoked, 'token')}"
        if before := len(ids) - revoked:
            sentence += f"; {before} had been revoked before"
        return self.answer(request, sentence + ".")

    @admin.display(description="State")
    def state(self, token: Token) -> SafeString:
        return show.badge(token.state)

    @admin.display(description="Created")
    def created(self, token: Token) -> str | SafeString:
        return show.ago(token.created_at)

    @admin.display(description="Last used")
    def used(self, token: Token) -> str | SafeString:
        return show.ago(token.last_used_at)

    @admin.display(description="Expires")
    def expires(self, token: Token) -> str | SafeString:
        return show.ago(token.expires_at)


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("when", "actor", "action", "target", "source", "detail")
    search_help_text = "A target such as task 12, or by:alice action:cancel"
    bare = "target"
    qualifiers = {"by": "actor", "action": "action"}
    selective = frozenset({""})
    list_display_links = None

    @admin.display(description="When")
    def when(self, event: AuditEvent) -> str | SafeString:
        return show.ago(event.at)


admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class DTSUserAdmin(UserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class DTSGroupAdmin(GroupAdmin, ModelAdmin):
    pass
