"""What `manage.py seed` fills the queue with: work for real workers, and a rehearsed past."""

from datetime import datetime, timedelta

from jobs.specs import JobSpec, Parent, TaskSpec, Unique
from jobs.states import OnDuplicate, Outcome

LABELS = {"made-by": "seed"}
# The past is made by workers that only play. The label keeps its tasks from real workers; no client
# may give a queue such a name, so players never claim what somebody wants run.
PAST_QUEUE, PAST_LABEL = "~past", "seed"
LIMITED_KEY, LIMIT = "api/weather", {"max_running": 2}


def shell(name: str, cmd: str, **task) -> TaskSpec:
    return TaskSpec(name=name, payload={"cmd": cmd}, **task)


def python(name: str, function: str, *args: object, **task) -> TaskSpec:
    payload = {"function": function, "args": list(args)}
    return TaskSpec(name=name, kind="python", payload=payload, **task)


def job(name: str, queue: str, *tasks: TaskSpec, unique: Unique | None = None) -> JobSpec:
    return JobSpec(name=name, queue=queue, tasks=tasks, labels=LABELS, unique=unique)


def work(scale: int, now: datetime) -> list[JobSpec]:
    """Jobs that real workers run, harmless and short; `scale` multiplies their tasks."""
    pictures = [
        shell(f"thumbnail-{n:03}", f"sleep 0.{n % 7 + 1}; echo photo-{n:03}.jpg 320x200")
        for n in range(24 * scale)
    ]
    hosts = [
        shell(
            f"ping-{host}",
            f'[ "$DTS_ATTEMPT" -ge {attempts} ] && echo {host} answers && exit\n'
            f"echo {host}: connection timed out >&2; exit 7",
            max_retries=3,
            timeout_seconds=10,
        )
        for host, attempts in (("mail", 1), ("shop", 2), ("warehouse", 3), ("legacy", 9))
        for _ in range(scale)
    ]
    return [
        job(
            "nightly-backup",
            "ops",
            shell("dump-shop", "sleep 2; echo shop.dump 412 MB", key="shop", max_retries=2),
            shell("dump-wiki", "sleep 1; echo wiki.dump 38 MB", key="wiki", max_retries=2),
            shell(
                "verify",
                "sleep 1; echo checksums match",
                priority=70,
                depends_on=("shop", "wiki"),
            ),
        ),
        job("image-thumbnails", "media", *pictures),
        job(
            "monthly-report",
            "reports",
            python("mean-basket", "statistics.fmean", [23.5, 41.0, 12.75], key="mean"),
            python("spread", "statistics.stdev", [23.5, 41.0, 12.75], key="spread"),
            python("broken-input", "statistics.fmean", [], key="broken", max_retries=1),
            shell("chart", "echo never drawn", depends_on=("broken",)),
            shell(
                "render",
                "sleep 1; echo report.pdf 12 pages",
                depends_on=("mean", "spread", Parent("broken", "run")),
            ),
        ),
        job(
            "etl-orders",
            "etl",
            *(
                shell(f"load-{n:02}", f"sleep 0.5; echo {n * 1000} rows", priority=20)
                for n in range(1, 8 * scale + 1)
            ),
            shell("stuck-partner", "sleep 600", timeout_seconds=3, max_retries=1),
        ),
        job("network-checks", "ops", *hosts),
        job(
            "mirror",
            "ops",
            shell(
                "pull",
                '[ "$DTS_ATTEMPT" -ge 3 ] && echo 3 files && exit\n'
                "echo the mirror is busy >&2; exit 75",
                max_retries=9,
                retry={
                    "backoff": "linear",
                    "base_seconds": 5,
                    "ceiling_seconds": 60,
                    "retry_on": [75, "timeout"],
                    "elsewhere": True,
                },
                timeout_seconds=20,
                deadline_seconds=900,
            ),
        ),
        job(
            "weather",
            "ops",
            *(
                shell(f"station-{n}", "sleep 2; echo 11 degrees", concurrency_key=LIMITED_KEY)
                for n in range(1, 6 * scale + 1)
            ),
            unique=Unique("weather", on_duplicate=OnDuplicate.REPLACE),
        ),
        job(
            "reminders",
            "mail",
            shell("in-two-minutes", "echo sent", run_after=now + timedelta(minutes=2)),
            shell("tomorrow", "echo sent", run_after=now + timedelta(days=1)),
        ),
        job(
            "train-model",
            "media",
            shell("prepare", "sleep 2; echo takes two slots of its worker", slots=2),
            shell(
                "train",
                "echo needs a worker with --capabilities gpu,mem_mb=16384",
                requires=["gpu", "mem_mb>=16000"],
            ),
        ),
    ]


# How the attempts at a task of the past end, one after another; the last word is its fate.
FATES: dict[str, tuple[Outcome, ...]] = {
    "resize": (Outcome.DONE,),
    "index": (Outcome.DONE,),
    "sync-stock": (Outcome.FAILED, Outcome.DONE),
    "import-prices": (Outcome.FAILED, Outcome.FAILED),
    "crawl-partner": (Outcome.TIMED_OUT,),
    "archive": (Outcome.LOST, Outcome.DONE),
    "mail-digest": (Outcome.RELEASED, Outcome.DONE),
}


def past(scale: int) -> list[JobSpec]:
    """Jobs whose every attempt is told by FATES."""

    def task(name: str) -> TaskSpec:
        retries = FATES[name].count(Outcome.FAILED)
        if FATES[name][-1] != Outcome.DONE:
            retries = len(FATES[name]) - 1
        return shell(
            name, f"./{name}", requires=[PAST_LABEL], max_retries=retries, timeout_seconds=60
        )

    jobs = {
        "catalogue-refresh": ["resize"] * 8 * scale + ["index"] * 3 * scale + ["sync-stock"] * 3,
        "partner-import": ["import-prices", "crawl-partner", "sync-stock"] * scale,
        "house-keeping": ["archive", "mail-digest", "index"] * scale,
    }
    return [job(name, PAST_QUEUE, *map(task, names)) for name, names in jobs.items()]


def schedules() -> list[dict]:
    """Schedules as POST schedules takes them: one that runs within minutes, one by night."""

    def template(name: str, cmd: str) -> dict:
        return {
            "name": name,
            "queue": "ops",
            "labels": LABELS,
            "tasks": [{"payload": {"cmd": cmd}}],
        }

    return [
        {
            "name": "disk-check",
            "cron": "*/5 * * * *",
            "overlap": "skip",
            "catch_up": "none",
            "template": template("disk-check {time}", "df -h /"),
        },
        {
            "name": "nightly-report",
            "cron": "30 2 * * MON-FRI",
            "time_zone": "Europe/Berlin",
            "jitter_seconds": 60,
            "template": template("report of {date}", "sleep 1; echo report-{date}.pdf 12 pages"),
        },
    ]
