"""The hand-written SQL in jobs/sql/, one statement a file."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from django.db import connection


@cache
def text(name: str) -> str:
    return (Path(__file__).parent / "sql" / f"{name}.sql").read_text()


def rows(name: str, parameters: Mapping[str, Any]) -> list[tuple]:
    """What the statement returns."""
    with connection.cursor() as cursor:
        cursor.execute(text(name), parameters)
        return cursor.fetchall()


def changed(name: str, parameters: Mapping[str, Any]) -> int:
    """How many rows the statement's outermost part changed."""
    with connection.cursor() as cursor:
        cursor.execute(text(name), parameters)
        return cursor.rowcount
