"""What sizes are rounded to, and which workers serve what requires them."""

import re

import pytest

from jobs.labels import REQUIREMENT, expanded, lane_key, offered, rounded
from jobs.models import Lane, Task
from tests.helpers import claim, promote, register, shell, submit

ROUNDED = [
    ("mem_mb>=1", "mem_mb>=1"),
    ("mem_mb>=2", "mem_mb>=2"),
    ("mem_mb>=3", "mem_mb>=4"),
    ("mem_mb>=1024", "mem_mb>=1024"),
    ("mem_mb>=1025", "mem_mb>=2048"),
    ("mem_mb>=2000", "mem_mb>=2048"),
    ("bytes>=999999999999999", "bytes>=1125899906842624"),
    ("gpu", "gpu"),
    ("mem_mb=2000", "mem_mb=2000"),
]


@pytest.mark.parametrize(("required", "kept"), ROUNDED)
def test_a_size_is_rounded_up_to_a_power_of_two_once(required, kept):
    assert rounded(required) == kept
    assert rounded(kept) == kept
    assert len(rounded(f"{'n' * 40}{required[required.find('>=') :]}")) <= 64


def test_what_tasks_require_in_whatever_words_is_one_lane():
    same = [("mem_mb>=1500", "gpu"), ("gpu", "mem_mb>=2048"), ("gpu", "gpu", "mem_mb>=1025")]
    assert {lane_key(requires, 1) for requires in same} == {(("gpu", "mem_mb>=2048"), 1)}
    assert lane_key([], 3) == ((), 3)


# What a worker offers, what a task requires, and whether they fit.
FITS = [
    ("mem_mb=16000", "mem_mb>=2000", True),
    ("mem_mb=16000", "mem_mb>=8192", True),
    ("mem_mb=16000", "mem_mb>=8193", False),
    ("mem_mb=16384", "mem_mb>=16000", True),
    ("mem_mb=2048", "mem_mb>=2000", True),
    ("mem_mb=2047", "mem_mb>=2000", False),
    ("mem_mb=1000", "mem_mb>=1001", False),
    ("mem_mb=1", "mem_mb>=1", True),
    ("mem_mb=0", "mem_mb>=1", False),
    ("mem_mb=16000", "mem_mb=16000", True),
    ("mem_mb=16000", "mem_mb=8192", False),
    ("disk=16000", "mem_mb>=1", False),
    ("mem=16000", "mem_mb>=1", False),
    ("mem_mb=big", "mem_mb>=1", False),
    ("bytes=99999999999999999999", "bytes>=999999999999999", True),
    ("gpu", "gpu", True),
    ("gpu=2", "gpu", False),
    ("region=eu", "region=eu", True),
    ("region=us", "region=eu", False),
    (f"{'n' * 41}=5", f"{'n' * 41}", False),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("offer", "requirement", "fits"), FITS)
def test_a_worker_serves_what_requires_no_more_than_it_offers(offer, requirement, fits):
    worker = register(capabilities=["other", offer])
    submit(shell("true", requires=[requirement]))
    assert promote() == fits
    assert len(claim(worker)) == fits


@pytest.mark.django_db
def test_a_size_is_kept_as_it_is_rounded_and_a_worker_shown_as_it_offers():
    submit(shell("true", requires=["mem_mb>=2000", "gpu"]))
    assert Task.objects.get().requires == ["gpu", "mem_mb>=2048"]
    assert str(Lane.objects.get()) == "default gpu mem_mb>=2048"
    worker = register(capabilities=["mem_mb=3000", "gpu"])
    assert worker.offers == offered(expanded(["mem_mb=3000", "gpu"])) == ["gpu", "mem_mb=3000"]


@pytest.mark.parametrize(
    "bad",
    [
        "mem_mb>2000",
        "mem_mb>=x",
        "mem_mb>=-1",
        "mem_mb>=0",
        "mem_mb>=02",
        "mem_mb>=1.5",
        "mem_mb>= 2",
        "mem_mb<=2",
        "mem_mb=>2",
        ">=2",
        "a=b>=2",
        "mem_mb>=1000000000000000",
        f"{'n' * 41}>=2",
        "mem_mb>=2\n",
    ],
)
def test_what_is_no_size(bad):
    assert not re.search(REQUIREMENT, bad)
