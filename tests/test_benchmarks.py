"""The benchmarks' arithmetic, their report, and one run of the smallest of them."""

import os
import re
import subprocess
import sys

import pytest
from django.conf import settings

from benchmarks import report
from benchmarks.__main__ import main
from benchmarks.peers import ROOT
from benchmarks.suite import SUITE
from benchmarks.tables import Section, Table, middle, percent_less, percentile, ratio, shown


def test_the_median_is_of_what_was_measured():
    assert middle([3.0, 1.0, 2.0]) == 2.0
    assert middle([None, 4.0, 2.0]) == 3.0
    assert middle([None]) is None


def test_a_ratio_is_of_the_same_round():
    # The ratio of the medians would be 20 / 100.
    assert ratio([10.0, 20.0, 90.0], [100.0, 40.0, 100.0]) == 0.5
    assert ratio([10.0, None], [20.0, 5.0]) == 0.5
    assert ratio([10.0], [0.0]) is None


def test_percent_less():
    assert percent_less(60.0, 100.0) == pytest.approx(40.0)
    assert percent_less(120.0, 100.0) == pytest.approx(-20.0)
    assert percent_less(None, 100.0) is None


@pytest.mark.parametrize(("part", "value"), [(0, 1), (0.5, 51), (0.99, 100), (1, 100)])
def test_percentiles(part, value):
    assert percentile(range(100, 0, -1), part) == value


def test_figures_are_shown_without_their_noise():
    assert [shown(v) for v in (None, "x", 0.0, 0.4567, 12.34, 31_204.4)] == [
        "-", "x", "0", "0.457", "12.3", "31,204",
    ]  # fmt: skip


def test_a_table_reads_in_markdown_and_on_a_terminal():
    table = Table(["peer", "tasks/s"], [["DTS", 1234.0], ["a rival", None]])
    assert table.markdown().splitlines() == [
        "| peer | tasks/s |",
        "|---|---:|",
        "| DTS | 1,234 |",
        "| a rival | - |",
    ]
    assert table.text().splitlines()[1:] == ["DTS        1,234", "a rival        -"]


def test_the_report_replaces_what_was_measured_and_keeps_the_rest():
    def section(title, method):
        return report.as_markdown(Section("x", title, method), "1 round")

    text = report.merged("", section("Drain", "old"), "# Head\n\n## Method and caveats\n\none")
    text = report.merged(text, section("Latency", "kept"), "# Head\n\n## Method and caveats\n\ntwo")
    text = report.merged(text, section("Drain", "new"), "# Head\n\n## Method and caveats\n\nthree")
    assert re.findall("^## (.+)", text, re.M) == ["Method and caveats", "Drain", "Latency"]
    assert "three" in text
    assert "new" in text
    assert "kept" in text
    assert not re.search(r"\b(old|one|two)\b", text)


@pytest.mark.parametrize("arguments", [["nonsense"], ["--peers", "dts"], ["--n", "0"]])
def test_nonsense_is_refused(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "error:" in capsys.readouterr().err


def test_every_benchmark_has_a_name_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    assert "-m benchmarks $(NAME)" in makefile
    assert {"drain", "latency", "shell", "enqueue", "bloat", "history", "policy"} <= SUITE.keys()


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--quick", "--peers", "ref,dts"],
        cwd=ROOT,
        env={**os.environ, "BENCH_DATABASE_URL": settings.DATABASE_URL, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_small_drain_counts_every_task_of_each_peer():
    done = bench("drain", "--n", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split("  ")[0]: line.split()[-5:] for line in done.stdout.splitlines()}
    assert float(rows["DTS"][0].replace(",", "")) > 0
    assert rows["bare SQL (psycopg)"][1] == "1"


def test_under_load_jobs_are_accepted_or_refused_and_all_accepted_are_stored():
    done = bench("load", DTS_MAX_BACKLOG="2000")
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = dict(re.findall(r"^(\w+)(?: \(429\))? +([\d,]+) ", done.stdout, re.MULTILINE))
    assert {"accepted", "refused", "all"} == numbers.keys() - {"MB"}
    accepted, stored = re.search("([0-9,]+) of ([0-9,]+) accepted jobs", done.stdout).groups()
    assert accepted == stored == numbers["accepted"]
