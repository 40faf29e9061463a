"""One view that runs one claim statement on the reference's narrow table."""

from django.db import connection
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

CLAIM = """
    WITH picked AS (
        SELECT id FROM task WHERE state = 0 ORDER BY priority DESC, id
        FOR UPDATE SKIP LOCKED LIMIT 10
    )
    UPDATE task SET state = 1, worker = 1, started_at = now()
    FROM picked WHERE task.id = picked.id RETURNING task.id, task.kind, task.args::text
"""


class Claims(APIView):
    def post(self, request: Request) -> Response:
        with connection.cursor() as cursor:
            cursor.execute(CLAIM)
            rows = cursor.fetchall()
        return Response({"tasks": [{"id": id, "kind": kind, "args": a} for id, kind, a in rows]})


urlpatterns = [path("claims", Claims.as_view())]
