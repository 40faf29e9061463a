"""Lists page by cursor, newest first: steady under inserts, and never a count."""

import re
from typing import Any

from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from dtsproject.errors import InvalidQuery

CURSOR = re.compile(r"(-?)([0-9]{1,19})")


class NewestFirst(CursorPagination):
    """By `-id`, unique and unchanging: a cursor can neither loop nor skip."""

    ordering = "-id"
    page_size = 50
    max_page_size = 500
    page_size_query_param = "limit"
    page_size_query_description = "Rows on a page, 1 to 500."
    cursor_query_description = "Where the page starts: taken from `next` or `previous`."
    parameters = ("cursor", "limit")

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        cursor, limit = super().get_schema_operation_parameters(view)
        cursor["schema"]["pattern"] = f"^{CURSOR.pattern}$"
        limit["schema"] |= {"minimum": 1, "maximum": self.max_page_size, "default": self.page_size}
        return [cursor, limit]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        properties = {"next": link, "previous": link, "results": schema}
        return {"type": "object", "required": list(properties), "properties": properties}

    def get_page_size(self, request: Request) -> int:
        text = request.query_params.get("limit", str(self.page_size))
        if not re.fullmatch(r"0*[1-9][0-9]{0,2}", text) or int(text) > self.max_page_size:
            raise InvalidQuery({"limit": f"give a whole number from 1 to {self.max_page_size}"})
        return int(text)

    # Ids being unique, a cursor needs no offset: `7` goes on after row 7, `-7` back before it.

    def encode_cursor(self, cursor: Any) -> str:
        text = f"{'-' if cursor.reverse else ''}{cursor.position}"
        return replace_query_param(self.base_url or "", self.cursor_query_param, text)

    def decode_cursor(self, request: Request) -> Cursor | None:
        text = request.query_params.get(self.cursor_query_param)
        if text is None:
            return None
        found = CURSOR.fullmatch(text)
        if found is None:
            raise InvalidQuery({"cursor": "this is no cursor; take it from `next`"})
        return Cursor(offset=0, reverse=bool(found[1]), position=int(found[2]))
