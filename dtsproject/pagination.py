"""Lists page by cursor, newest first: steady under inserts, and never a count."""

import re
from typing import Any

from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

from dtsproject.errors import InvalidQuery


class NewestFirst(CursorPagination):
    """By `-id`, unique and unchanging: a cursor can neither loop nor skip."""

    ordering = "-id"
    page_size = 50
    max_page_size = 500
    page_size_query_param = "limit"
    page_size_query_description = "Rows on a page, 1 to 500."
    cursor_query_description = "Where the page starts: taken from `next` or `previous`."
    parameters = ("cursor", "limit")

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        properties = {"next": link, "previous": link, "results": schema}
        return {"type": "object", "required": list(properties), "properties": properties}

    def get_page_size(self, request: Request) -> int:
        text = request.query_params.get("limit", str(self.page_size))
        if not re.fullmatch(r"0*[1-9][0-9]{0,2}", text) or int(text) > self.max_page_size:
            raise InvalidQuery({"limit": f"give a whole number from 1 to {self.max_page_size}"})
        return int(text)

    def decode_cursor(self, request: Request) -> Cursor | None:
        try:
            cursor: Any = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                int(cursor.position)
        except (NotFound, ValueError):
            raise InvalidQuery(
                {"cursor": "this is no cursor of this list; take it from `next`"}
            ) from None
        return cursor
