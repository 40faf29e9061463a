"""The admin's form for a new schedule, held to what the API holds one to."""

import json
from typing import Any

from django import forms
from rest_framework.exceptions import APIException

from dtsproject import parsers, problems
from dtsproject.admin_base import UnfoldAdminTextareaWidget
from scheduling.api.serializers import ScheduleSubmission
from scheduling.models import Schedule

EXAMPLE = {"name": "backup {date}", "tasks": [{"payload": {"cmd": "./backup {date}"}}]}
HELP = {
    "name": "Letters, digits and . _ -",
    "cron": "Five fields, such as 30 2 * * MON-FRI, or @daily and kin",
    "time_zone": "IANA name, such as Europe/Berlin",
    "overlap": "While its last job runs",
    "catch_up": "Of times that were missed",
    "catch_up_limit": "At most so many of them",
    "jitter_seconds": "Fires up to so much later",
}


class ScheduleForm(forms.ModelForm):
    template = forms.CharField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 12}),
        initial=json.dumps(EXAMPLE, indent=2),
        help_text=ScheduleSubmission().fields["template"].help_text or "",
    )

    class Meta:
        model = Schedule
        fields = tuple(ScheduleSubmission().fields)
        help_texts = HELP

    def clean_template(self) -> Any:
        try:
            return parsers.loads(self.cleaned_data["template"].encode())
        except APIException as error:
            text = str(error.detail).replace("The body", "The template", 1)
            raise forms.ValidationError(text) from None

    def clean(self) -> dict[str, Any]:
        super().clean()
        if self.errors:
            return self.cleaned_data
        given = {
            name: value.isoformat() if name in ("starts_at", "ends_at") else value
            for name, value in self.cleaned_data.items()
            if value is not None
        }
        asked = ScheduleSubmission(data=given)
        if not asked.is_valid():
            for fault in problems.faults(asked.errors, "#"):
                _, name, *path = fault["pointer"].split("/")
                at = "/".join(path)
                self.add_error(name, f"{at}: {fault['detail']}" if at else fault["detail"])
        else:
            self.values = asked.validated_data
        return self.cleaned_data
