"""Which transport a worker uses: what its command line says of the server, and no secret."""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from workers.transports.base import Transport
from workers.transports.database import DatabaseTransport
from workers.transports.http import HttpTransport

VISIBLE = re.compile(r"[!-~]+")


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--server",
        type=server_url,
        default=settings.SERVER,
        help="URL of the API to work for; then no database is needed",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        help="with the token for --server, read again at each call; or else DTS_TOKEN is it",
    )


def server_url(text: str) -> str:
    if not text:
        return text
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        good = False
    if not good or url.query or url.fragment or url.username is not None:
        raise argparse.ArgumentTypeError(f"give a URL like https://dts.example.org, not {text!r}")
    return text.rstrip("/")


def transport(options: Mapping[str, Any], former_boot_id: UUID | None) -> Transport:
    """The transport that run_worker's options name. Raises CommandError."""
    if not options["server"]:
        if options["token_file"]:
            raise CommandError("--token-file goes with --server", returncode=2)
        return DatabaseTransport()
    token = token_source(options["token_file"])
    try:
        token()
    except OSError as error:
        raise CommandError(f"cannot read the token: {error}", returncode=2) from error
    return HttpTransport(options["server"], token, former_boot_id)


def token_source(path: Path | None) -> Callable[[], str]:
    """Gives the token whenever it is asked: a file may get another one while a worker runs."""

    def read() -> str:
        """Raises OSError where the file is none, or holds no token."""
        if path is None:
            return str(settings.TOKEN)
        text = path.read_text(encoding="ascii", errors="replace").strip()
        if not VISIBLE.fullmatch(text):
            raise OSError(f"{path} holds no token")
        return text

    return read
