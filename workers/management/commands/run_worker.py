import argparse
import os
import re
import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.core.management.base import CommandError, CommandParser

from dtsproject.command import LOOP_CHECKS
from dtsproject.command import Command as BaseCommand
from dtsproject.conf import conf
from dtsproject.loop import stop_on_signals
from workers import identity
from workers.agent import Agent
from workers.inline import InlineRunner
from workers.processes import Guard, GuardRunning
from workers.registry import Registration
from workers.runner import Runner
from workers.transports.database import DatabaseTransport

MAX_SLOTS = 1000
WORD = re.compile(r"[\w.=-]{1,64}")
NAME = re.compile(r"[\w.-]{1,100}")


class Command(BaseCommand):
    help = "Run a worker: claims queued tasks, runs them, reports. SIGTERM drains it."
    requires_system_checks = LOOP_CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        slots = os.cpu_count() or 1
        parser.add_argument(
            "--slots", type=slot_count, default=slots, help=f"tasks at a time (here: {slots})"
        )
        parser.add_argument("--name", type=worker_name, help="unique; default: host name and pid")
        parser.add_argument(
            "--capabilities", type=words, default=[], help="what it offers: gpu,region=eu"
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
            return runner(me.boot_id, options["slots"], lambda: Guard(me.lock_path), on_end)

        try:
            agent = Agent(registration, DatabaseTransport(), make_runner, options["drain_seconds"])
        except GuardRunning as running:
            raise CommandError(f"{running}; choose another --name", returncode=2) from running
        stop_on_signals(agent.drain, agent.release_now)
        agent.start()
        identity.keep(me)
        agent.run()
        if agent.failure:
            raise agent.failure


def slot_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SLOTS:
        raise argparse.ArgumentTypeError(f"give a number from 1 to {MAX_SLOTS}, not {text!r}")
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


def dts_version() -> str:
    try:
        return version("dts")
    except PackageNotFoundError:
        return "source"
