import hashlib
import hmac
import secrets
from datetime import datetime

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from jobs import statements

SCOPES = ("read", "submit", "operate", "work", "admin")


def digest(secret: str) -> str:
    """SHA-256, hex. A fast hash is right for a secret of 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Token(models.Model):
    """A credential for the API: `dts_<prefix>_<secret>`, of which only a hash is kept."""

    prefix = models.CharField(max_length=8, unique=True, editable=False)
    hashed_secret = models.CharField(max_length=64, editable=False)
    name = models.CharField(max_length=100, help_text="What or who uses it")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True)
    worker_name = models.CharField(
        "worker",
        max_length=100,
        blank=True,
        default="",
        help_text="The one worker that the scope work lets it be; empty: any",
    )
    scopes = ArrayField(models.CharField(max_length=8, choices=[(s, s) for s in SCOPES]))
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "tokens"

    def __str__(self) -> str:
        return f"{self.name} (dts_{self.prefix}_...)"

    @classmethod
    def issue(
        cls,
        name: str,
        scopes: list[str],
        expires_at: datetime | None = None,
        *,
        owner: AbstractBaseUser | None = None,
        worker_name: str = "",
    ) -> tuple["Token", str]:
        """A new token and its text, which cannot be shown again."""
        prefix, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        token = cls.objects.create(
            prefix=prefix,
            hashed_secret=digest(secret),
            name=name,
            scopes=scopes,
            expires_at=expires_at,
            owner=owner,
            worker_name=worker_name,
        )
        return token, f"dts_{prefix}_{secret}"

    @classmethod
    def find(cls, text: str) -> "Token | None":
        """The valid token that `text` spells, if any: its owner's account, too, must be active."""
        match text.split("_", 2):
            case ["dts", prefix, secret]:
                token = cls._of_prefix(prefix)
            case _:
                return None
        if token is None or not hmac.compare_digest(token.hashed_secret, digest(secret)):
            return None
        return token if token.state == "valid" else None

    @classmethod
    def _of_prefix(cls, prefix: str) -> "Token | None":
        """By hand, since each request asks: the ORM takes longer to write this than to run it."""
        for *values, active in statements.rows("token", {"prefix": prefix}):
            names = [field.attname for field in cls._meta.concrete_fields]
            token = cls.from_db("default", names, values)
            if token.owner_id:
                token.owner = get_user_model()(pk=token.owner_id, is_active=active)
            return token
        return None

    @property
    def state(self) -> str:
        """valid, revoked, expired, or disabled as its owner is."""
        if self.revoked_at:
            return "revoked"
        if self.expires_at and self.expires_at <= timezone.now():
            return "expired"
        return "valid" if self.owner is None or self.owner.is_active else "disabled"


class AuditEvent(models.Model):
    """Who did what to what, when and from where. Append-only."""

    at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=40)
    target = models.CharField(max_length=40, help_text="Such as task 12 or worker 3")
    source = models.CharField(max_length=60, blank=True, help_text="Address, or the command")
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        db_table = "audit_events"
        indexes = [models.Index(name="audit_events_of_target", fields=["target", "id"])]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.target}"
