"""The audit trail: who did what to what, when and from where."""

from collections.abc import Iterable
from typing import Any

from jobs.models import AuditEvent


def record(actor: str, action: str, targets: Iterable[str], source: str, **detail: Any) -> None:
    """Adds one event for each target (`task 12`, `worker 3`), in one statement.

    Called in the transaction of what it records, so that neither is kept without the other.
    `source` is an address, or the command that was used.
    """
    AuditEvent.objects.bulk_create(
        AuditEvent(actor=actor, action=action, target=target, source=source, detail=detail)
        for target in targets
    )
