"""A connection to a server that may still be starting."""

import http.client
import time

START_SECONDS = 30.0


def connect(port: int, timeout_seconds: float = 60.0) -> http.client.HTTPConnection:
    """Raises ConnectionRefusedError where none is accepted within START_SECONDS."""
    give_up_at = time.monotonic() + START_SECONDS
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
            connection.connect()
            return connection
        except ConnectionRefusedError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.1)
