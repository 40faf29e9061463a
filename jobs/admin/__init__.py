"""Pages of the admin: jobs, tasks, attempts (Work), and tokens, people, the audit (Access)."""

from jobs.admin import access, attempt, job, operation, task

__all__ = ["access", "attempt", "job", "operation", "task"]
