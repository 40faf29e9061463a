"""Pages of the admin: work, its queues and limits; and tokens, people, the audit (Access)."""

from jobs.admin import access, attempt, job, limit, operation, task

__all__ = ["access", "attempt", "job", "limit", "operation", "task"]
