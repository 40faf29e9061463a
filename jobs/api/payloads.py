"""What a task is to run, in JSON: as it is taken, strictly, and as it is shown."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from jobs.api.fields import Boolean, Label, StrictSerializer, Text
from jobs.secrets import MASK, masked, value_of
from jobs.states import Kind

# Linux passes no longer single argument or variable: MAX_ARG_STRLEN, which counts a final NUL.
MAX_ARGUMENT_BYTES = 128 * 1024 - 1
DOTTED_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+\Z"


def fits_an_argument(text: str) -> None:
    if len(text) > MAX_ARGUMENT_BYTES // 4 and len(text.encode()) > MAX_ARGUMENT_BYTES:
        raise serializers.ValidationError(
            f"Linux passes at most {MAX_ARGUMENT_BYTES} bytes; put a long script in a file, or "
            "give it as stdin to `sh`.",
            code="max_length",
        )


def is_environment(variables: Mapping[str, Any]) -> None:
    for name, given in variables.items():
        if not name or "=" in name:
            raise serializers.ValidationError(f"{name!r} cannot name a variable.", code="invalid")
        fits_an_argument(f"{name}={value_of(given)}")


def is_true(flag: bool) -> None:
    if not flag:
        raise serializers.ValidationError("Give true, or the value alone as a string.")


def is_no_mask(value: str) -> None:
    if value == MASK:
        raise serializers.ValidationError(
            f"{MASK} is what is shown instead of a secret value; give the value.", code="masked"
        )


class Secret(StrictSerializer):
    secret = Boolean(validators=[is_true])
    value = Text(allow_blank=True, validators=[is_no_mask])


class Variable(serializers.Field):
    """A string, or an object that keeps it secret."""

    plain, secret = Text(allow_blank=True), Secret()

    def to_internal_value(self, data: Any) -> Any:
        kind = self.secret if isinstance(data, Mapping) else self.plain
        return kind.run_validation(data)


@extend_schema_field(
    {
        "type": "object",
        "propertyNames": {"pattern": "^[^=]+$"},
        "additionalProperties": {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {
                        "secret": {"const": True},
                        "value": {"type": "string", "not": {"const": MASK}},
                    },
                    "required": ["secret", "value"],
                    "additionalProperties": False,
                },
            ]
        },
    }
)
class Environment(serializers.DictField):
    child = Variable()


class ShellPayload(StrictSerializer):
    cmd = Text(validators=[fits_an_argument], help_text="Run by /bin/sh -c.")
    env = Environment(
        required=False,
        validators=[is_environment],
        help_text="A secret value reaches the task's process, and is shown to nobody.",
    )
    cwd = Text(required=False, max_length=4095)
    stdin = Text(required=False, allow_blank=True)


class PythonPayload(StrictSerializer):
    function = Label(DOTTED_PATH, max_length=255, help_text="package.module.function")
    args = serializers.ListField(required=False)
    kwargs = serializers.DictField(required=False)


PAYLOADS: dict[str, StrictSerializer] = {Kind.SHELL: ShellPayload(), Kind.PYTHON: PythonPayload()}


@extend_schema_field({"type": "object", "additionalProperties": {}})
class ShownPayload(serializers.ReadOnlyField):
    def to_representation(self, value: Any) -> Any:
        return masked(value)
