"""DTS: p_dts.py's verbs, and churn."""

import benchlib
from benchlib import CHURN_BATCH, PRIORITIES, URGENT_PRIORITY

from benchmarks import p_dts
from jobs.specs import TaskSpec


def task(priority: int, *args: float) -> TaskSpec:
    payload = {"function": "benchlib.mark", "args": args}
    return TaskSpec(kind="python", payload=payload, priority=priority)


def churn(seconds: float, backlog: int) -> None:
    p_dts.django()
    from jobs import queue
    from jobs.specs import JobSpec

    many = JobSpec(name="churn", tasks=[task(n % PRIORITIES) for n in range(CHURN_BATCH)])

    def urgent(now: float) -> None:
        queue.submit(JobSpec(name="urgent", tasks=[task(URGENT_PRIORITY, now)]))

    benchlib.churned(seconds, backlog, lambda: queue.submit(many), urgent)


benchlib.main(p_dts.info, p_dts.setup, p_dts.bulk, p_dts.single, p_dts.pace, p_dts.worker, churn)
