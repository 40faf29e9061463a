"""Logging: structlog renders, for people by default, as JSON lines for machines."""

import logging
import re
import sys

import structlog

TOKEN = re.compile(r"(dts_[0-9a-f]{8}_)[A-Za-z0-9_-]+")


def harmless(text: str, *, but: str = "") -> str:
    """The text without tokens, and with escapes for what is not printable (line ends, terminal
    codes), except the characters of `but`: who sends us a name writes no line of his own."""
    if not text.isprintable():
        text = "".join(
            c if c.isprintable() or c in but else c.encode("unicode_escape").decode() for c in text
        )
    return TOKEN.sub(r"\1***", text) if "dts_" in text else text


def make_harmless(
    logger: object, name: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = harmless(value, but="\n\t" if key in ("exception", "stack") else "")
    return event


def configure(*, as_json: bool) -> None:
    """Sends every logger, DTS's own and the libraries', to stderr in one form."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                make_harmless,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # Every refused request would be logged twice: the access log has it already.
    logging.getLogger("django.request").setLevel(logging.ERROR)
