"""The OpenAPI document: what the routes say of themselves, and what any of them may refuse with."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

FILE = {"schema": {"type": "string", "format": "binary"}}
FILE_SENT = {"requestBody": {"required": True, "content": {"application/octet-stream": FILE}}}  # for ``openapi_extra``
FILES: dict[int | str, dict[str, Any]] = {  # for ``responses``; a part where a range was asked for
    status: {"description": said, "content": {"*/*": FILE}} for status, said in ((200, "The file"), (206, "A part of it"))
}
PROBLEM = {  # RFC 9457; ``code`` is what a program looks at, and some problems say more
    "title": "Problem",
    "type": "object",
    "required": ["type", "status", "code", "detail"],
    "properties": {
        "type": {"const": "about:blank"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string", "pattern": "^[a-z_]+$"},
        "detail": {"type": "string"},
        "retry_after": {"type": "integer", "description": "seconds, as in Retry-After"},
        "problems": {"type": "array", "items": {"type": "string"}, "description": "everything that is wrong with a request"},
    },
}
REFUSALS = {
    "4XX": ("Refused", "Nothing was changed, and `code` says why"),
    "503": ("Unavailable", "The database does not answer, or the server stops: nothing was changed, try again"),
}


def described(app: FastAPI) -> dict[str, Any]:
    """What the server says of itself; made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for operation in (one for methods in made["paths"].values() for one in methods.values()):
            operation["responses"].pop("422", None)  # FastAPI's own shape, which nothing here is refused with
            refusals = {status: {"$ref": f"#/components/responses/{name}"} for status, (name, _) in REFUSALS.items()}
            operation["responses"].update(refusals)
        parts, content = made["components"], {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        parts["schemas"] = {name: one for name, one in parts["schemas"].items() if "ValidationError" not in name}
        parts["schemas"]["Problem"] = PROBLEM
        parts["responses"] = {name: {"description": said, "content": content} for name, said in REFUSALS.values()}
        app.openapi_schema = made
    return app.openapi_schema
