#!/usr/bin/env python
"""DTS's one command line: `manage.py help` lists the commands."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dtsproject.settings")
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line, get_commands

    try:
        name = sys.argv[1] if len(sys.argv) > 1 else "help"
        settings.INSTALLED_APPS  # noqa: B018 - loads the settings, and with them the commands
        if not name.startswith("-") and name != "help" and name not in get_commands():
            sys.exit(refuse(f"no command {name!r}; `manage.py help` lists them"))
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(refuse(str(error)))


def refuse(reason: str) -> int:
    print(f"manage.py: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
