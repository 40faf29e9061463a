"""What the operations of the OpenAPI document have in common: strictness and problems."""

from typing import Any

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
    500: "A fault of DTS.",
    503: "The database does not answer; Retry-After says when to try again.",
}
BODY = {
    411: "The body comes in chunks, without its length.",
    413: "The body is too large.",
    415: "The body is not JSON.",
}


def refused(status: int, description: str) -> dict[int, Any]:
    """For `responses=` of extend_schema: a problem that only this operation answers."""
    return {status: OpenApiResponse(PROBLEM, description)}


def finish(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Postprocessing hook of drf-spectacular."""
    components = result.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name, schema in schemas.items():
        if name.endswith("Request") and "properties" in schema:
            schema["additionalProperties"] = False
    schemas["Problem"] = PROBLEM
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
            operation["responses"] = dict(sorted(own.items()))
    return result


def _response(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}
