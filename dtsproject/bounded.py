"""Questions to big tables whose cost does not grow with the table."""

from dataclasses import dataclass

from django.db.models import QuerySet, Subquery

CAP = 10_000


@dataclass(frozen=True)
class Count:
    """A count that stopped at `cap`; prints as `137` or `10,000+`."""

    value: int
    cap: int = CAP

    @property
    def capped(self) -> bool:
        return self.value > self.cap

    def __bool__(self) -> bool:
        return self.value > 0

    def __str__(self) -> str:
        return f"{self.cap:,}+" if self.capped else f"{self.value:,}"


def newest(queryset: QuerySet, rows: int) -> QuerySet:
    """Those of `queryset` among the newest `rows` ids of its table."""
    last = queryset.model._default_manager.order_by("-pk").values("pk")[:1]
    return queryset.filter(pk__gt=Subquery(last) - rows)
