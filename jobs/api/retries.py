"""What a task says of its retries, strictly: when, where, and after which failures."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from jobs.api.fields import Boolean, Integer, Number, StrictSerializer

MAX_BACKOFF_SECONDS = 30 * 24 * 3600
MAX_EXIT_CODE = 255
# What has no exit code: the attempt ran into its timeout, or a signal ended it.
NAMED = ("timeout", "signal")


@extend_schema_field(
    {
        "oneOf": [
            {"type": "integer", "minimum": 1, "maximum": MAX_EXIT_CODE},
            {"type": "string", "enum": list(NAMED)},
        ]
    }
)
class Failure(serializers.Field):
    """How an attempt failed: its exit code, or a name."""

    default_error_messages = {
        "invalid": f"Give an exit code from 1 to {MAX_EXIT_CODE}, or one of: {', '.join(NAMED)}."
    }
    exit_code = Integer(min_value=1, max_value=MAX_EXIT_CODE)

    def to_internal_value(self, data: Any) -> int | str:
        if isinstance(data, str) and data in NAMED:
            return data
        try:
            code: int = self.exit_code.run_validation(data)
        except serializers.ValidationError:
            self.fail("invalid")
        return code


class RetryRules(StrictSerializer):
    """How often it is tried again, `max_retries` says."""

    default_error_messages = {
        "both": "{failure} is in retry_on, too: leave it in one of them.",
        "ceiling": "This is less than base_seconds: no wait would be as long as that.",
    }

    backoff = serializers.ChoiceField(
        ["fixed", "linear", "exponential"],
        required=False,
        help_text="Before retry n it waits base_seconds, n times as long, or 2^(n-1) times; up to "
        "half of that is taken off at random. Default: exponential.",
    )
    base_seconds = Number(
        required=False,
        min_value=0,
        max_value=MAX_BACKOFF_SECONDS,
        help_text="Default: DTS_BACKOFF_BASE_SECONDS.",
    )
    ceiling_seconds = Number(
        required=False,
        min_value=0,
        max_value=MAX_BACKOFF_SECONDS,
        help_text="It waits no longer. Default: DTS_BACKOFF_CEILING_SECONDS.",
    )
    retry_on = serializers.ListField(
        child=Failure(),
        required=False,
        min_length=1,
        max_length=MAX_EXIT_CODE + len(NAMED),
        help_text="Only after these failures it is tried again. Default: after any.",
    )
    fail_on = serializers.ListField(
        child=Failure(),
        required=False,
        min_length=1,
        max_length=MAX_EXIT_CODE + len(NAMED),
        help_text="After these failures it is not tried again.",
    )
    elsewhere = Boolean(
        required=False,
        help_text="Another worker is preferred for the next attempt: the one on which it failed "
        "leaves it to others for 5 seconds.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        allowed = attrs.get("retry_on", ())
        faults: Any = {
            place: [self.fault("both", failure=failure)]
            for place, failure in enumerate(attrs.get("fail_on", ()))
            if failure in allowed
        }
        if faults:
            raise serializers.ValidationError({"fail_on": faults})
        ceiling = attrs.get("ceiling_seconds")
        if ceiling is not None and ceiling < attrs.get("base_seconds", 0):
            raise serializers.ValidationError({"ceiling_seconds": [self.fault("ceiling")]})
        return attrs

    def fault(self, code: str, **words: Any) -> serializers.ErrorDetail:
        return serializers.ErrorDetail(self.error_messages[code].format(**words), code=code)


@extend_schema_field(RetryRules(allow_null=True))
class ShownRules(serializers.ReadOnlyField):
    """As they were given."""
