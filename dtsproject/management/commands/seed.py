import os
import random
import time
import uuid
from typing import Any

from django.core.management.base import CommandParser
from django.db import transaction
from django.utils import timezone

from dtsproject import stack_seeds as seeds
from dtsproject.command import Command as BaseCommand
from dtsproject.conf import conf
from dtsproject.management.commands.stack import whole_number
from jobs import logs, queue
from jobs.models import Job, Task
from jobs.specs import Claimed, Ending, JobSpec, LogPart
from jobs.states import Outcome
from scheduling import schedules
from scheduling.api.serializers import ScheduleSubmission
from scheduling.models import Schedule
from scheduling.scheduler import Scheduler
from workers import registry

WORKERS, SLOTS = 3, 4
LONGEST_RUN_SECONDS = 0.5
WORDS = {
    Outcome.DONE: "ok",
    Outcome.FAILED: "connection refused",
    Outcome.TIMED_OUT: "timed out after 60 s",
    Outcome.LOST: "its worker went silent",
    Outcome.RELEASED: "released",
}


class Command(BaseCommand):
    help = "Fill the queue with an example: a recent past, and work for the workers that run."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--scale", type=whole_number(1, 100), default=1, help="multiplies the tasks"
        )

    def handle(self, *args: Any, scale: int, **options: Any) -> None:
        past = [self.submit(spec) for spec in seeds.past(scale)]
        players = [Player(f"seed-{os.getpid()}-{n + 1}") for n in range(WORKERS)]
        try:
            play(players, past)
        finally:
            for player in players:
                player.leave()
        queue.limit_key(seeds.LIMITED_KEY, seeds.LIMIT)
        self.stdout.write(f"{seeds.LIMITED_KEY:18} limit {seeds.LIMIT['max_running']}")
        for spec in seeds.work(scale, timezone.now()):
            self.submit(spec)
        for described in seeds.schedules():
            self.schedule(described)

    def schedule(self, described: dict[str, Any]) -> None:
        if Schedule.objects.filter(name=described["name"]).exists():
            return
        asked = ScheduleSubmission(data=described)
        asked.is_valid(raise_exception=True)
        with transaction.atomic():
            made = schedules.create(asked.validated_data, created_by="seed")
        self.stdout.write(f"{made.name:18} schedule {made.cron} {made.time_zone}")

    def submit(self, spec: JobSpec) -> Job:
        job = queue.submit(spec, submitted_by="seed")
        tasks = len(spec.tasks)
        self.stdout.write(f"{spec.name:18} job {job.pk:<6} tasks {tasks:<5} queue {spec.queue}")
        return job


class Player:
    """A worker that runs nothing: it ends each attempt as FATES has it."""

    def __init__(self, name: str) -> None:
        self.boot_id = uuid.uuid4()
        registration = registry.Registration(
            name=name,
            boot_id=self.boot_id,
            machine_id="seed",
            slots=SLOTS,
            capabilities=[seeds.PAST_LABEL],
            queues=[seeds.PAST_QUEUE],
        )
        self.worker_id = registry.register(registration).pk
        self.held: dict[int, tuple[Claimed, float]] = {}
        self._beat_at = time.monotonic()

    def turn(self) -> None:
        """Ends what has run long enough, claims what there is, sends a heartbeat if due."""
        now = time.monotonic()
        over = [task for task, end_at in self.held.values() if end_at <= now]
        if over:
            logs.append(self.worker_id, [output(task) for task in over])
            queue.report([ending(task) for task in over], worker_id=self.worker_id)
            self.held = {i: held for i, held in self.held.items() if held[0] not in over}
        free = SLOTS - len(self.held)
        claimed = queue.claim(worker_id=self.worker_id, boot_id=self.boot_id, limit=free)
        for task in claimed:
            run_seconds = random.uniform(0.1, LONGEST_RUN_SECONDS)  # noqa: S311 - no secret
            self.held[task.task_id] = task, now + run_seconds
        if now - self._beat_at > conf().heartbeat_seconds:
            self._beat_at = now
            tokens = {task.task_id: task.fencing_token for task, _ in self.held.values()}
            registry.heartbeat(self.worker_id, self.boot_id, tokens)

    def leave(self) -> None:
        """Gives back what it holds, and goes."""
        released = [ending(task, Outcome.RELEASED) for task, _ in self.held.values()]
        if released:
            queue.report(released, worker_id=self.worker_id)
        registry.leave(self.worker_id, self.boot_id)


def play(players: list[Player], jobs: list[Job]) -> None:
    """Runs the jobs to their end through the queue's own verbs."""
    scheduler = Scheduler()
    while Task.objects.live().filter(job__in=jobs).exists():
        scheduler.tick()
        for player in players:
            player.turn()
        time.sleep(0.02)
    scheduler.tick()


def ending(task: Claimed, outcome: Outcome | None = None) -> Ending:
    """How this attempt at the task ends, by its fate unless an `outcome` is given."""
    if outcome is None:
        fate = seeds.FATES[task.name]
        outcome = fate[min(task.attempt, len(fate)) - 1]
    done = outcome == Outcome.DONE
    words = WORDS[outcome]
    return Ending(
        task_id=task.task_id,
        fencing_token=task.fencing_token,
        outcome=outcome,
        exit_code={Outcome.DONE: 0, Outcome.FAILED: 1}.get(outcome),
        cpu_seconds=0.05,
        error="" if done else words,
        result=words,
        output=f"{task.name}: {words}",
    )


def output(task: Claimed) -> LogPart:
    text = f"{task.name}: attempt {task.attempt}\n"
    return LogPart(
        task_id=task.task_id,
        fencing_token=task.fencing_token,
        stream="stdout",
        start=0,
        data=text.encode(),
    )
