#!/usr/bin/env python
"""DTS's one command line: `manage.py help` lists the commands."""

import argparse
import contextlib
import os
import sys
from typing import NoReturn

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility, get_commands, handle_default_options
from django.core.management.base import BaseCommand

LOOPS = ("run_scheduler", "run_worker", "run_recovery")


class Utility(ManagementUtility):
    """Django's, but that it refuses nonsense in one line, with exit status 2."""

    def execute(self) -> None:
        if self.argv[1:2] == ["run_worker"]:
            note_server(self.argv[2:])
        if self.argv[1:2] and self.argv[1] in LOOPS:
            with contextlib.suppress(ImproperlyConfigured, ImportError):  # execute reports them
                leave_out_pages(self.argv[2:])
        super().execute()

    def fetch_command(self, subcommand: str) -> BaseCommand:
        if self.settings_exception:
            refuse(str(self.settings_exception))
        if subcommand not in get_commands():
            refuse(f"no command {subcommand!r}; `manage.py help` lists them")
        return super().fetch_command(subcommand)


def note_server(arguments: list[str]) -> None:
    """Tells the settings of a worker's --server: they then ask for no database."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--server")
    with contextlib.suppress(argparse.ArgumentError):  # the command refuses it
        if server := parser.parse_known_args(arguments)[0].server:
            os.environ["DTS_SERVER"] = server


def leave_out_pages(arguments: list[str]) -> None:
    """Spares a loop the apps that only pages need, about 20 MB, where no others were added.

    A team's own app may need any of them, so with one there all are loaded.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    with contextlib.suppress(argparse.ArgumentError):  # as Django, which then refuses it
        handle_default_options(parser.parse_known_args(arguments)[0])
    loop_apps = getattr(settings, "LOOP_APPS", [])
    if [*getattr(settings, "PAGE_APPS", []), *loop_apps] == settings.INSTALLED_APPS:
        settings.INSTALLED_APPS = loop_apps


def refuse(reason: str) -> NoReturn:
    print(f"manage.py: {reason}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dtsproject.settings")
    try:
        Utility(sys.argv).execute()
    except ImproperlyConfigured as error:
        refuse(str(error))


if __name__ == "__main__":
    main()
