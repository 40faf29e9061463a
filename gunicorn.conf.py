"""gunicorn's settings; `gunicorn` alone, in this folder, serves DTS on ORCH_HOST:ORCH_PORT."""

import ipaddress
import logging
import os
import sys
from typing import Any, NoReturn

from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dtsproject.settings")


def refuse(reason: str) -> NoReturn:
    print(f"gunicorn: {reason}", file=sys.stderr)
    sys.exit(2)


try:
    from django.conf import settings

    from dtsproject.conf import conf

    anonymous_access = conf().anonymous_access
except ImproperlyConfigured as error:
    refuse(str(error))

wsgi_app = "dtsproject.wsgi:application"
_host = f"[{settings.ORCH_HOST}]" if ":" in settings.ORCH_HOST else settings.ORCH_HOST
bind = f"{_host}:{settings.ORCH_PORT}"

worker_class = "dtsproject.webserver.Worker"
workers = os.environ.get("WEB_CONCURRENCY", "2")
threads = 8  # jobs/delay.py leaves some of them free
timeout = 60
graceful_timeout = 30
keepalive = 5
# The heartbeat file must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
# The control socket would be one path for every gunicorn of this account.
control_socket_disable = True

accesslog = "-"
access_log_format = '%(h)s "%(r)s" %(s)s %(B)s bytes %(M)s ms'


def on_starting(server: Any) -> None:
    """Refuses anonymous access from afar; hands gunicorn's logs to DTS's own logging."""
    for address in server.cfg.address:
        if anonymous_access == "loopback" and not is_loopback(address):
            refuse(
                "DTS_ANONYMOUS_ACCESS=loopback needs ORCH_HOST to be a loopback address; bind to"
                " 127.0.0.1, or set it to off (or to trusted-network where strangers are kept out)"
            )
    for name in ("gunicorn.error", "gunicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def is_loopback(address: object) -> bool:
    """Whether gunicorn's `address`, a (host, port), admits this machine alone.

    A unix socket does not count: what stands before it speaks for others.
    """
    if not isinstance(address, tuple):
        return False
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return bool(address[0] == "localhost")
