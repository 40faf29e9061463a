"""Fields that mean what they say: JSON strings are strings, JSON numbers are numbers."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from django.utils.dateparse import parse_datetime
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from jobs.labels import LABEL, REQUIREMENT

NAME_OF_QUEUE = r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z"
# Python counts some control characters as white space that other readers of a schema do not.
NOT_BLANK = r"[^\s\u001c-\u001f\u0085]"


class Text(serializers.CharField):
    """A string, kept as it is; blank means nothing but white space."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if not self.allow_blank and not data.strip():
            self.fail("blank")
        return data


class TextScheme(OpenApiSerializerFieldExtension):
    target_class = "jobs.api.fields.Text"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema = auto_schema._map_serializer_field(self.target, direction, bypass_extensions=True)
        return schema if self.target.allow_blank else {**schema, "pattern": NOT_BLANK}


class Label(serializers.RegexField):
    """A word that queues and machines are matched by."""

    default_error_messages = {
        "invalid": "Use letters, digits and . _ : = / - in it, a letter or digit first."
    }

    def __init__(self, regex: str = LABEL, **options: Any) -> None:
        options = {"max_length": 64, "trim_whitespace": False} | options
        super().__init__(regex, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data


class Requirement(Label):
    """A label, or a size, that a task's worker must have."""

    default_error_messages = {
        "invalid": "Give a label (letters, digits and . _ : = / - in it, a letter or digit first), "
        "or a size such as mem_mb>=2000: a name, >= and a whole number from 1 to 999999999999999."
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(REQUIREMENT, **options)


class Integer(serializers.IntegerField):
    """To JSON Schema, 5.0 is an integer."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, float) and data.is_integer():
            return int(data)
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class Number(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        try:
            value = float(data)
        except OverflowError:
            self.fail("invalid")
        if not math.isfinite(value):
            self.fail("invalid")
        return value


def positive(seconds: float) -> None:
    if seconds <= 0:
        raise serializers.ValidationError("Give more than 0 seconds.", code="min_value")


@extend_schema_field({"type": "number", "format": "double", "exclusiveMinimum": 0})
class Seconds(Number):
    def __init__(self, **options: Any) -> None:
        super().__init__(validators=[positive], **options)


class Boolean(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


def instant(text: str) -> datetime | None:
    """The time in UTC of an ISO 8601 text with an offset from UTC; None for any other text."""
    try:
        moment = parse_datetime(text)
        return moment.astimezone(UTC) if moment and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


class Instant(serializers.DateTimeField):
    default_error_messages = {
        "invalid": "Give a time with its offset from UTC, such as 2030-01-31T08:00:00+01:00."
    }

    def to_internal_value(self, data: Any) -> datetime:
        moment = instant(data) if isinstance(data, str) else None
        if moment is None:
            self.fail("invalid")
        return moment


class StrictSerializer(serializers.Serializer):
    """Refuses fields it does not know, by name, and looks only at those that are given.

    The latter makes it several times faster on long lists of short objects. A subclass puts no
    defaults and no sources on its fields: what is not given is not in `validated_data`.
    """

    default_error_messages = {"unknown": "There is no such field; there are {known}."}

    @cached_property
    def known(self) -> dict[str, serializers.Field]:
        return dict(self.fields.items())

    @cached_property
    def required_names(self) -> list[str]:
        return [name for name, field in self.known.items() if field.required]

    def field_for(self, name: str, data: Mapping[str, Any]) -> serializers.Field | None:
        return self.known.get(name)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            message = self.error_messages["invalid"].format(datatype=type(data).__name__)
            raise serializers.ValidationError({"non_field_errors": [message]}, code="invalid")
        values, errors = {}, {}
        for name, value in data.items():
            field = self.field_for(name, data)
            try:
                if field is None:
                    self.fail("unknown", known=", ".join(self.known) or "none")
                values[name] = field.run_validation(value)
            except serializers.ValidationError as error:
                errors[name] = error.detail
        for name in self.required_names:
            if name not in data:
                fault = serializers.ErrorDetail("This field is required.", code="required")
                errors[name] = [fault]
        if errors:
            raise serializers.ValidationError(errors)
        return values
