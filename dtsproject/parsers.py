"""Strict JSON: what PostgreSQL could not store, or nobody could have meant, is refused here."""

import json
import math
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import JSONParser

MAX_DEPTH = 64
TOO_DEEP = f"The body nests deeper than {MAX_DEPTH} levels."


class StrictJSONParser(JSONParser):
    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        return loads(stream.read())


def loads(body: bytes | str) -> Any:
    """The value of a JSON text in UTF-8.

    Raises ParseError for what is not JSON, and ValidationError, which names the place, for NUL,
    lone surrogates, numbers out of range and nesting deeper than MAX_DEPTH.
    """
    try:
        text = body if isinstance(body, str) else body.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ParseError(f"The body is not UTF-8: {error.reason} at byte {error.start}.") from None
    except RecursionError:
        raise ParseError(TOO_DEEP) from None
    except ValueError as error:
        raise ParseError(f"The body is not JSON: {error}.") from None
    _check(value)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is out of range")
    return number


def _check(value: Any, depth: int = 0) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict | list):
        if depth >= MAX_DEPTH:
            raise ParseError(TOO_DEEP)
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            try:
                _check(key)
                _check(inner, depth + 1)
            except ValidationError as error:
                place = str(key).encode(errors="replace").decode()
                raise ValidationError({place: error.detail}) from None


def _check_text(text: str) -> None:
    # PostgreSQL stores neither. ASCII, nearly all there is, passes quickly.
    if "\0" in text:
        raise ValidationError("NUL (\\u0000) cannot be stored.", code="null_character")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationError("Half a surrogate pair is no character.", code="lone_surrogate")
