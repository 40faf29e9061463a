"""The admin's form for a new operation, held to what the API holds one to."""

import json
from typing import Any

from django import forms
from rest_framework.exceptions import APIException

from dtsproject import parsers, problems
from dtsproject.admin_base import UnfoldAdminTextareaWidget, UnfoldBooleanWidget
from jobs import operations
from jobs.api.operations import OperationSubmission
from jobs.models import Operation


class OperationForm(forms.ModelForm):
    filter = forms.CharField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        initial=json.dumps({"status": "failed", "queue": "default"}),
        help_text="As the query parameters of the API's list; {} means all",
    )
    only_count = forms.BooleanField(
        widget=UnfoldBooleanWidget,
        initial=True,
        required=False,
        help_text="Say how many tasks it would change, and do nothing",
    )

    class Meta:
        model = Operation
        fields = ("action", "target", "filter", "priority")
        help_texts = {"priority": "For prioritise alone"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "priority" in self.fields:
            self.fields["priority"].required = False

    def clean_filter(self) -> Any:
        try:
            return parsers.loads(self.cleaned_data["filter"].encode())
        except APIException as error:
            text = str(error.detail).replace("The body", "The filter", 1)
            raise forms.ValidationError(text) from None

    def clean(self) -> dict[str, Any]:
        super().clean()
        if self.errors:
            return self.cleaned_data
        given = {n: v for n, v in self.cleaned_data.items() if n != "only_count" and v is not None}
        asked = OperationSubmission(data=given)
        if not asked.is_valid():
            for fault in problems.faults(asked.errors, "#"):
                self.add_error(fault["pointer"].split("/")[1], fault["detail"])
            return self.cleaned_data
        try:
            found = operations.count(Operation(**asked.validated_data))
        except operations.BadFilter as refusal:
            self.add_error("filter", refusal.detail)
            return self.cleaned_data
        if self.cleaned_data["only_count"]:
            self.add_error("only_count", f"It would change {found} tasks. Untick this to do it.")
        return self.cleaned_data
