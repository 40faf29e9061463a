"""Prepared statements and what becomes of them (jobs/statements.py)."""

import pytest

from jobs import queue, statements
from jobs.models import Token
from jobs.specs import JobSpec, TaskSpec

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_is_prepared_after_a_submit_was_undone_can_be_executed_again():
    queue.submit(JobSpec(name="first", tasks=[TaskSpec(payload={"cmd": "true"})]))

    with pytest.raises(ZeroDivisionError):
        begin_and_fail()

    for _ in range(3):
        Token.find(f"dts_00000000_{'x' * 43}")


def begin_and_fail():
    with statements.transaction():
        statements.execute("task_ids", {"count": 1})
        raise ZeroDivisionError
