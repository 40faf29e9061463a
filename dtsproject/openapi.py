"""What the operations of the OpenAPI document have in common: strictness and problems."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import OpenApiResponse

from dtsproject.problems import MEDIA_TYPE

METHODS = ("get", "post", "put", "patch", "delete")
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and how to mend it."},
        "instance": {"type": "string"},
        "code": {"type": "string", "description": "Stable: for programs."},
        "request_id": {"type": "string", "description": "As in X-Request-ID and the log."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "Such as #/tasks/3/payload/cmd"},
                    "parameter": {"type": "string"},
                    "line": {"type": "integer", "description": "Of a body of lines."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
ALWAYS = {
    400: "The body or a query parameter is not valid.",
    401: "No valid credentials.",
    403: "The credentials lack a scope.",
    406: "Only JSON can be had.",
    429: "Too many requests; Retry-After says when to try again.",
    500: "A fault of DTS.",
    503: "The database does not answer; Retry-After says when to try again.",
}
HEADERS = {
    "X-Request-ID": "As in the log; the client's own, if it sent one.",
    "WWW-Authenticate": "The way to authenticate.",
    "Retry-After": "In seconds.",
}
HEADER_OF = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}
BODY = {
    411: "The body comes in chunks, without its length.",
    413: "The body is too large.",
    415: "The body is not JSON.",
}
# gunicorn's own answer, before DTS sees anything of the request.
TOO_LONG = {
    "description": "The address is longer than 4,094 bytes.",
    "content": {"text/html": {"schema": {"type": "string"}}},
}


def refused(status: int, description: str) -> dict[int, Any]:
    """For `responses=` of extend_schema: a problem that only this operation answers."""
    return {status: OpenApiResponse(PROBLEM, description)}


class ListScheme(OpenApiSerializerFieldExtension):
    """Says how many items a list of objects may have."""

    target_class = "rest_framework.serializers.ListSerializer"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema = auto_schema._map_serializer_field(self.target, direction, bypass_extensions=True)
        if not self.target.allow_empty:
            schema["minItems"] = 1
        if self.target.max_length:
            schema["maxItems"] = self.target.max_length
        return schema


def finish(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Postprocessing hook of drf-spectacular."""
    components = result.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name, schema in schemas.items():
        if name.endswith("Request") and "properties" in schema:
            schema["additionalProperties"] = False
    schemas["Problem"] = PROBLEM
    components["responses"] = {"TooLong": TOO_LONG}
    components["headers"] = {
        name: {"description": text, "required": True, "schema": {"type": "string"}}
        for name, text in HEADERS.items()
    }
    for path, operations in result["paths"].items():
        for method in METHODS & operations.keys():
            operation = operations[method]
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True
            common = dict(ALWAYS)
            if "{" in path:
                common[404] = "There is nothing with this id."
            if method in ("post", "patch"):
                common |= BODY
            own = operation["responses"]
            described = {s: r["description"] for s, r in own.items() if int(s) >= 400}
            described |= {str(s): text for s, text in common.items() if str(s) not in own}
            own |= {status: _response(text) for status, text in described.items()}
            described_all = {s: _with_headers(s, own[s]) for s in sorted(own)}
            too_long = {"414": {"$ref": "#/components/responses/TooLong"}}
            operation["responses"] = described_all | too_long
    return result


def _with_headers(status: str, response: dict[str, Any]) -> dict[str, Any]:
    names = filter(None, ["X-Request-ID", HEADER_OF.get(status)])
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {**response, "headers": {**response.get("headers", {}), **headers}}


def _response(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}
