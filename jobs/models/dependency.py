from django.db import models

from jobs.states import OnFailure


class Dependency(models.Model):
    """An edge: `task` does not start before `depends_on` has ended.

    `met` once that end has been counted. If it was a bad one, `on_failure` says whether `task` is
    cancelled, too, or may start all the same.
    """

    pk = models.CompositePrimaryKey("task_id", "depends_on_id")
    task = models.ForeignKey(
        "jobs.Task",
        models.CASCADE,
        related_name="dependencies",
        db_constraint=False,
        db_index=False,
    )
    depends_on = models.ForeignKey(
        "jobs.Task",
        models.CASCADE,
        related_name="dependents",
        db_constraint=False,
        db_index=False,
    )
    on_failure = models.CharField(max_length=6, choices=OnFailure, default=OnFailure.CANCEL)
    met = models.BooleanField(default=False)

    class Meta:
        db_table = "dependencies"
        indexes = [models.Index(name="dependencies_on", fields=["depends_on"])]

    def __str__(self) -> str:
        return f"{self.task_id} after {self.depends_on_id}"


class EndedParent(models.Model):
    """A task that has ended and has dependents, which the scheduler has yet to tell.

    Written in the statement that ends the task, deleted in the one that tells them all. It may
    stand there twice: what was told is told no second time.
    """

    task = models.ForeignKey(
        "jobs.Task", models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )

    class Meta:
        db_table = "ended_parents"
