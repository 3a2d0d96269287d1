"""Defines what is asked of /api/views: windows of one latent at any size."""

import asyncio
from collections import Counter
from functools import partial
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from arbiscale_jax.inference.checks import check_box, check_size
from arbiscale_jax.web.delivery import encode_window
from arbiscale_jax.web.requests import Client, TheSite, parse_box, parse_size, wait_for
from arbiscale_jax.web.site import Site
from arbiscale_jax.web.views import ImageView, View, parse_view
from arbiscale_jax.web.worker import Steps, Task

router = APIRouter(prefix="/api")
Kind = Literal["model", "bicubic"]
Box = tuple[int, int, int, int]


class ViewInfo(BaseModel):
    """Describes a view."""

    view: str
    height: int = Field(description="The height at x1: of the picture, or of the images the model was trained for.")
    width: int
    ready: bool = Field(description="Whether its latent is in memory, so that windows need no sampling.")


@router.get("/views/{view}")
def read_view(view: str, site: TheSite) -> ViewInfo:
    """Describes a view."""
    parsed = parse_view(view)
    site.room.check(parsed)
    height, width = site.room.base_size(parsed)
    return ViewInfo(view=str(parsed), height=height, width=width, ready=site.room.has(parsed))


@router.get("/views/{view}/window", response_class=Response, responses={200: {"content": {"image/png": {}}}})
async def read_window(
    request: Request,
    view: str,
    site: TheSite,
    client: Client,
    size: Annotated[str, Query(description="HEIGHTxWIDTH of the whole image, which need not exist.")],
    box: Annotated[str, Query(description="TOP,LEFT,HEIGHT,WIDTH of the window.")],
    kind: Annotated[
        Kind, Query(description="The model's image, or bicubic interpolation of the view at x1.")
    ] = "model",
) -> Response:
    """Returns a window of an image of any size as a PNG file; a request that its client drops is not computed."""
    parsed = parse_view(view)
    site.room.check(parsed)
    whole = check_size(parse_size(size))
    shown = check_box(parse_box(box, site.limits.window_pixels), whole)
    key = (parsed, kind, whole, shown)
    content = site.encoded.get(key)
    if content is None:
        site.wanted[parsed] += 1
        try:
            pixels = await wait_for(request, site, Task(client, partial(_steps, site, key), urgent=True))
        finally:
            site.wanted[parsed] -= 1
            site.wanted += Counter()  # which forgets views that nobody waits for
        content = pixels if isinstance(pixels, bytes) else await asyncio.to_thread(encode_window, pixels)
        site.encoded.put(key, content)
    return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=86400"})


def _steps(site: Site, key: tuple[View, Kind, tuple[int, int], Box], task: Task) -> Steps:
    """Renders a window, unless another client has just had it rendered; sampling comes in a turn of its own."""
    view, kind, size, box = key

    def progress(done: int, parts: int) -> None:
        if done < parts and not site.wanted[view]:  # somebody who moves on waits for another window of it
            task.check()

    needed = kind == "model" or isinstance(view, ImageView)  # interpolating a picture needs no latent
    if needed and not site.room.has(view):
        site.room.sample(view, 1, progress)
        yield
    ready: bytes | np.ndarray | None = site.encoded.get(key)
    if ready is None:
        render = site.room.window if kind == "model" else site.room.interpolated
        ready = render(view, size, box)
    return ready
