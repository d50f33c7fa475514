"""What people see in a browser: the page at /, and the documentation of the API at /docs.

Everything comes from this service, Swagger UI's files from a package: no request leaves for
another host.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

_PAGE = Path(__file__).parent / "page"
_DOCS = Path(__file__).parent / "docs"
_SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")

_HEADERS = {
    "Cache-Control": "no-cache",  # ask again, so that modules of two releases never mix
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGE_HEADERS = _HEADERS | {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
}
# Swagger UI sets styles on its elements and draws with data: images.
_DOCS_HEADERS = _HEADERS | {
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
}


def add_site(api: FastAPI) -> None:
    """Add the page and the documentation."""
    page_files = StaticFiles(directory=_PAGE)
    own_docs = StaticFiles(directory=_DOCS)
    swagger = StaticFiles(packages=[("fastapi_swagger", "resources")])

    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers=_PAGE_HEADERS)

    @api.get("/page/{name}", include_in_schema=False)
    async def page_file(request: Request, name: str) -> Response:
        return await _file(page_files, name, request, _PAGE_HEADERS)

    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(_DOCS / "index.html", headers=_DOCS_HEADERS)

    @api.get("/docs/{name}", include_in_schema=False)
    async def docs_file(request: Request, name: str) -> Response:
        files = swagger if name in _SWAGGER_FILES else own_docs
        return await _file(files, name, request, _DOCS_HEADERS)


async def _file(
    files: StaticFiles, name: str, request: Request, headers: dict[str, str]
) -> Response:
    if "\0" in name:
        raise HTTPException(404)
    answer = await files.get_response(name, request.scope)
    answer.headers.update(headers)
    return answer
