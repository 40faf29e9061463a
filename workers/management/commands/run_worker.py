import argparse
import os
import re
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.core.management.base import CommandError, CommandParser

from dtsproject.command import LOOP_CHECKS
from dtsproject.command import Command as BaseCommand
from dtsproject.conf import conf
from dtsproject.loop import stop_on_signals
from dtsproject.postgresql.base import serve_as
from jobs.labels import LABEL, MAX_SLOTS
from workers import identity
from workers.agent import Agent
from workers.inline import InlineRunner
from workers.processes import Guard, GuardRunning
from workers.registry import Registration
from workers.runner import Runner
from workers.siblings import REFUSED, Siblings
from workers.spool import Spool
from workers.transports import choice

MAX_PROCESSES = 100
WORD = re.compile(r"[\w.=-]{1,64}")
NAME = re.compile(r"[\w.-]{1,100}")


class Command(BaseCommand):
    help = "Run a worker: claims queued tasks, runs them, reports. SIGTERM drains it."
    requires_system_checks = LOOP_CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        slots = os.cpu_count() or 1
        parser.add_argument(
            "--slots",
            type=slot_count,
            default=slots,
            help=f"tasks at a time, fewer where some take several slots (here: {slots})",
        )
        parser.add_argument(
            "--processes",
            type=process_count,
            default=1,
            help="workers to run side by side, NAME-1 and so on, each with its slots",
        )
        choice.add_arguments(parser)
        parser.add_argument("--name", type=worker_name, help="unique; default: host name and pid")
        parser.add_argument(
            "--capabilities",
            type=labels,
            default=[],
            help="what it offers, labels and sizes: gpu,region=eu,mem_mb=16000",
        )
        parser.add_argument("--queues", type=words, default=[], help="only these; default: all")
        parser.add_argument(
            "--executor",
            choices=["process", "inline"],
            default="process",
            help="inline: run Python tasks in the worker itself, for short trusted functions",
        )
        parser.add_argument(
            "--drain-seconds",
            type=float,
            default=conf().drain_seconds,
            help="how long running tasks may finish after SIGTERM (%(default)g)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["processes"] == 1:
            self.run_one(options)
            return
        siblings = Siblings(commands(options))
        siblings.run()
        if siblings.refused:
            sys.exit(REFUSED)  # it has said why

    def run_one(self, options: dict[str, Any]) -> None:
        serve_as("worker")
        me = identity.take(options["name"] or identity.default_name())
        registration = Registration(
            name=me.name,
            boot_id=me.boot_id,
            machine_id=me.machine_id,
            slots=options["slots"],
            capabilities=options["capabilities"],
            queues=options["queues"],
            version=dts_version(),
            host=socket.gethostname(),
            pid=os.getpid(),
            former_boot_dead=me.former_boot_dead,
        )

        def make_runner(on_end: Any) -> Runner:
            runner = InlineRunner if options["executor"] == "inline" else Runner
            return runner(me.boot_id, options["slots"], start_guard, on_end)

        def start_guard() -> Guard:
            return Guard(me.lock_path, patience_seconds=conf().lease_seconds / 2)

        try:
            agent = Agent(
                registration,
                choice.transport(options, me.former_boot_id),
                make_runner,
                options["drain_seconds"],
                Spool(me.lock_path.with_suffix(".spool")),
            )
        except GuardRunning as running:
            raise CommandError(f"{running}; choose another --name", returncode=2) from running
        stop_on_signals(agent.drain, agent.release_now)
        agent.start()
        identity.keep(me)
        agent.run()
        if agent.failure:
            raise agent.failure


def commands(options: dict[str, Any]) -> dict[str, list[str]]:
    """By the name of each process, the command that runs it alone."""
    name = options["name"] or identity.default_name()
    same = [f"--{key}={options[key]}" for key in ("slots", "executor")]
    same.append(f"--drain-seconds={options['drain_seconds']}")
    same += [f"--{key}={','.join(options[key])}" for key in ("capabilities", "queues")]
    if options["server"]:
        same.append(f"--server={options['server']}")
    if options["token_file"]:
        same.append(f"--token-file={options['token_file']}")
    if options["pythonpath"]:
        same.append(f"--pythonpath={options['pythonpath']}")
    return {
        one: [sys.executable, sys.argv[0], "run_worker", f"--name={one}", *same]
        for one in (f"{name}-{number + 1}" for number in range(options["processes"]))
    }


def slot_count(text: str) -> int:
    return count(text, MAX_SLOTS)


def process_count(text: str) -> int:
    return count(text, MAX_PROCESSES)


def count(text: str, most: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"give a number from 1 to {most}, not {text!r}")
    return int(text)


def worker_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"use up to 100 letters, digits, dots, dashes or underscores, not {text!r}"
        )
    return text


def words(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    for word in found:
        if not WORD.fullmatch(word):
            raise argparse.ArgumentTypeError(f"{word!r} is no label: letters, digits and .=_- only")
    return found


def labels(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    for word in found:
        if ">" in word:
            raise argparse.ArgumentTypeError(f"a size is offered as mem_mb=16000, not {word!r}")
        if len(word) > 64 or not re.match(LABEL, word):
            raise argparse.ArgumentTypeError(
                f"{word!r} is no label: letters, digits, ._:=/- inside; up to 64"
            )
    return found


def dts_version() -> str:
    try:
        return version("dts")
    except PackageNotFoundError:
        return "source"
