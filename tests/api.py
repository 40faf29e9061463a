"""Clients of the API for tests."""

import json
from typing import Any

from rest_framework.test import APIClient

from jobs.models import Token

JOB = {"name": "demo", "tasks": [{"payload": {"cmd": "true"}}]}


class Client(APIClient):
    """Posts bodies as JSON (bytes as they are) and lets faults of the server come as answers."""

    def __init__(self, *scopes: str, name: str = "tests") -> None:
        super().__init__(raise_request_exception=False)
        if scopes:
            _, text = Token.issue(name, list(scopes))
            self.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")

    def send(self, path: str, body: Any = b"", **more: Any) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.post(path, data, content_type="application/json", **more)


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem document of a response, which must be a whole one with this status and code."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    document = json.loads(response.content)
    assert document["code"] == code, document
    assert document["status"] == status
    assert document["type"] == f"urn:dts:problem:{code}"
    assert document["detail"]
    assert document["title"]
    return document


def pointers(document: dict[str, Any]) -> list[str]:
    return [error["pointer"] for error in document["errors"]]
