"""Defines the application: the API, the page, and what is said of errors."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

import arbiscale_jax
from arbiscale_jax.errors import UserError
from arbiscale_jax.web import job_routes, picture_routes, view_routes
from arbiscale_jax.web.failures import Missing, TooMany
from arbiscale_jax.web.guards import Guard
from arbiscale_jax.web.requests import TooLarge
from arbiscale_jax.web.site import Site
from arbiscale_jax.web.worker import Cancelled

PAGE = Path(str(files("arbiscale_jax.web") / "page"))
STATUS = {UserError: 400, TooLarge: 413, Missing: 404, TooMany: 429}
_ABOUT = """Upscale pictures by any factor, generate images, and render windows of one latent at any size.

POST a picture to /api/pictures, a job with its id to /api/jobs, ask /api/jobs/JOB until its state is done, and GET
/api/jobs/JOB/results/0. Errors are {"detail": one sentence}. If the server has a token, every request needs the header
`Authorization: Bearer TOKEN`. The header `X-Client` names one of several clients at the same address.
"""


def make_app(site: Site, token: str = "", hosts: Collection[str] = ()) -> Guard:
    """Makes the application.

    Args:
      site: its parts, which the caller closes.
      token: the token that the API needs, or "" for none.
      hosts: names besides localhost and IP addresses by which the server may be called.

    Returns:
      An ASGI application.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        site.worker.close(0)

    api = FastAPI(
        title="arbiscale",
        version=arbiscale_jax.__version__,
        description=_ABOUT,
        openapi_url="/api/openapi.json",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    api.state.site = site
    for one in (picture_routes, job_routes, view_routes):
        api.include_router(one.router)
    api.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    for kind in STATUS:
        api.add_exception_handler(kind, _said)
    api.add_exception_handler(Cancelled, _cancelled)
    api.add_exception_handler(TimeoutError, _late)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(Exception, _failed)
    return Guard(api, token, hosts)


def _said(request: Request, error: Exception) -> JSONResponse:
    return _answer(next(status for kind, status in STATUS.items() if isinstance(error, kind)), str(error))


def _cancelled(request: Request, error: Exception) -> JSONResponse:
    return _answer(503, "The work was cancelled, since its client left or the server stops.")


def _late(request: Request, error: Exception) -> JSONResponse:
    return _answer(408, "The file took too long to arrive; send it again, or a smaller one.")


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(one) for one in first["loc"][1:])
    return _answer(422, f"{where or 'The request'}: {first['msg']}; /api/openapi.json describes what is taken.")


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, str(error.detail))


def _failed(request: Request, error: Exception) -> JSONResponse:
    return _answer(500, "The server failed to answer this; its log says why.")


def _answer(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)
