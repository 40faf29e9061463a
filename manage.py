#!/usr/bin/env python
"""DTS's one command line: `manage.py help` lists the commands."""

import os
import sys
from typing import NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility, get_commands
from django.core.management.base import BaseCommand


class Utility(ManagementUtility):
    """Django's, but that it refuses nonsense in one line, with exit status 2."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        if self.settings_exception:
            refuse(str(self.settings_exception))
        if subcommand not in get_commands():
            refuse(f"no command {subcommand!r}; `manage.py help` lists them")
        return super().fetch_command(subcommand)


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
