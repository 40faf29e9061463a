"""What users submit, what became of it, and the narrow tables the machine works on."""

from jobs.models.access import AuditEvent, Token
from jobs.models.dependency import Dependency, EndedParent
from jobs.models.history import Attempt, LogChunk
from jobs.models.job import IdempotencyKey, Job, Queue, UniqueKey
from jobs.models.limit import Bucket, Limit, Permit
from jobs.models.narrow import Blocked, Deferred, Lane, Lease, Ready, Waiting
from jobs.models.operation import Operation
from jobs.models.task import Task

__all__ = [
    "Attempt",
    "AuditEvent",
    "Blocked",
    "Bucket",
    "Deferred",
    "Dependency",
    "EndedParent",
    "IdempotencyKey",
    "Job",
    "Lane",
    "Lease",
    "Limit",
    "LogChunk",
    "Operation",
    "Permit",
    "Queue",
    "Ready",
    "Task",
    "Token",
    "UniqueKey",
    "Waiting",
]
