"""Who calls the API, and what they may do there: both doors use it.

Whoever is let in has `request.auth`, an Access: a name for the records, and scopes.
"""

import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from django.contrib.auth.models import AnonymousUser
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from dtsproject.conf import conf
from jobs.models import Token
from jobs.models.access import SCOPES

USED_AT_MOST_EVERY = timedelta(minutes=1)
TOKEN = re.compile(r"dts_[0-9a-f]{8}_[A-Za-z0-9_-]{20,100}")
# What a member of staff may do beside reading, by Django's model permissions.
STAFF_PERMISSIONS = {"submit": "jobs.add_job", "operate": "jobs.change_task"}


@dataclass(frozen=True)
class Access:
    name: str
    scopes: frozenset[str]
    identity: str  # of the token or user, whatever its name
    worker_name: str = ""  # the one worker that it may be; empty: any


def access(request: Request) -> Access:
    """What the one who was let in may do."""
    return cast(Access, request.auth)


class BearerToken(authentication.BaseAuthentication):
    """`Authorization: Bearer dts_...`"""

    def authenticate(self, request: Request) -> tuple[Any, Access] | None:
        kind, _, text = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return None
        token = Token.find(text) if TOKEN.fullmatch(text) else None
        if token is None:
            raise AuthenticationFailed("The token is unknown, expired or revoked.")
        note_use(token)
        scopes = frozenset(token.scopes)
        return AnonymousUser(), Access(token.name, scopes, f"token {token.pk}", token.worker_name)

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def note_use(token: Token) -> None:
    """Keeps `last_used_at` right to a minute; a busy token costs no write a request."""
    last = token.last_used_at
    if last is None or last < timezone.now() - USED_AT_MOST_EVERY:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=Now() - USED_AT_MOST_EVERY)
        Token.objects.filter(stale, pk=token.pk).update(last_used_at=Now())


class StaffSession(authentication.SessionAuthentication):
    """Staff signed in to the admin, with CSRF protection for what writes."""

    def authenticate(self, request: Request) -> tuple[Any, Access] | None:
        found = super().authenticate(request)
        if found is None or not found[0].is_staff:
            return None
        user = found[0]
        return user, Access(user.get_username(), staff_scopes(user), f"user {user.pk}")


def staff_scopes(user: Any) -> frozenset[str]:
    if user.is_superuser:
        return frozenset(SCOPES)
    more = (scope for scope, needed in STAFF_PERMISSIONS.items() if user.has_perm(needed))
    return frozenset(["read", *more])


class NoToken(authentication.BaseAuthentication):
    """Everybody, where ANONYMOUS_ACCESS says so: all but `admin`.

    Web pages of other sites are kept out (browsers name the page's site in Origin), and where
    only this machine may call, so is whatever a proxy passes on.
    """

    def authenticate(self, request: Request) -> tuple[Any, Access] | None:
        if conf().anonymous_access == "off":
            return None
        if conf().anonymous_access == "loopback" and not _is_local(request):
            return None
        origin = request.headers.get("Origin")
        if origin and origin.partition("://")[2] != request.get_host():
            raise PermissionDenied(f"Pages of {origin} may not call this without a token.")
        return AnonymousUser(), Access("anonymous", frozenset(SCOPES) - {"admin"}, "anonymous")


def _is_local(request: Request) -> bool:
    try:
        peer = ipaddress.ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    return peer.is_loopback and "X-Forwarded-For" not in request.headers


class HasScope(BasePermission):
    """Reading needs `read`; everything else needs the scope its view names."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.auth is None:
            return False
        may = access(request)
        scope = "read" if request.method in SAFE_METHODS else getattr(view, "scope", "admin")
        if scope not in may.scopes:
            raise PermissionDenied(
                f"This needs the scope {scope}; {may.name} has "
                f"{', '.join(sorted(may.scopes)) or 'none'}.",
                code="scope_missing",
            )
        return True


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "jobs.authentication.BearerToken"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "manage.py token create"}


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "jobs.authentication.StaffSession"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}


class NoTokenScheme(OpenApiAuthenticationExtension):
    """OpenAPI says `{}` for a request without credentials."""

    target_class = "jobs.authentication.NoToken"
    name: list[str] = []

    def get_security_requirement(self, auto_schema: Any) -> list[dict]:
        return [{}]

    def get_security_definition(self, auto_schema: Any) -> list[dict]:
        return []
