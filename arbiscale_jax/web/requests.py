"""Contains what the routes share: who asks, and what a request has to say."""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from arbiscale_jax.errors import UserError
from arbiscale_jax.web.failures import TooMany
from arbiscale_jax.web.site import Site
from arbiscale_jax.web.worker import Cancelled, Task

CLIENT_HEADER = "x-client"
_CLIENT = re.compile(r"[A-Za-z0-9_-]{8,64}")
_PAIR = re.compile(r"([0-9]{1,13})x([0-9]{1,13})")
_BOX = re.compile(r"([0-9]{1,13}),([0-9]{1,13}),([0-9]{1,13}),([0-9]{1,13})")


def site_of(request: Request) -> Site:
    """Returns the site that the application serves."""
    return request.app.state.site


def client_of(request: Request) -> str:
    """Returns who asks: the page that the header X-Client names, or an address.

    Raises:
      UserError: if the header has another form.
    """
    given = request.headers.get(CLIENT_HEADER)
    if given is None:
        return f"address {request.client.host if request.client else 'unknown'}"
    if not _CLIENT.fullmatch(given):
        raise UserError("The header X-Client is 8 to 64 letters, digits, - or _; leave it out, or choose such a name.")
    return f"page {given}"


TheSite = Annotated[Site, Depends(site_of)]
Client = Annotated[str, Depends(client_of)]


def parse_size(text: str) -> tuple[int, int]:
    """Reads (height, width) from HEIGHTxWIDTH, and raises UserError if it has another form."""
    found = _PAIR.fullmatch(text)
    if not found:
        raise UserError(f"size={text[:40]} is no size; write HEIGHTxWIDTH, such as size=1024x1024.")
    return int(found[1]), int(found[2])


def parse_box(text: str, most: int) -> tuple[int, int, int, int]:
    """Reads (top, left, height, width) from TOP,LEFT,HEIGHT,WIDTH.

    Raises:
      UserError: if it has another form, or more than `most` pixels.
    """
    found = _BOX.fullmatch(text)
    if not found:
        raise UserError(f"box={text[:60]} is no window; write TOP,LEFT,HEIGHT,WIDTH, such as box=0,256,256,256.")
    top, left, height, width = (int(part) for part in found.groups())
    if height * width > most:
        raise UserError(f"A window of {height} x {width} pixels is larger than the {most} that are sent at once.")
    return top, left, height, width


async def body_of(request: Request, most: int) -> bytes:
    """Reads the body of a request.

    Raises:
      TooLarge: if it has more than `most` bytes; the rest is not read.
    """
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise TooLarge(int(said), most)
    parts, total = [], 0
    async for part in request.stream():
        total += len(part)
        if total > most:
            raise TooLarge(total, most)
        parts.append(part)
    return b"".join(parts)


class TooLarge(ValueError):
    """Says in one sentence that a body has too many bytes (status 413)."""

    def __init__(self, given: int, most: int):
        super().__init__(f"The file has {given} bytes or more, and at most {most} are taken; give a smaller one.")


async def wait_for(request: Request, site: Site, task: Task) -> Any:
    """Has a task computed and returns its result, unless the client goes away first, which cancels it.

    Raises:
      TooMany: if too many tasks like it wait.
      Cancelled: if the client has gone, or the server stops.
    """
    mine, all_ = site.worker.number(task.client, urgent=True), site.worker.number(urgent=True)
    if mine >= site.limits.windows_per_client or all_ >= site.limits.windows:
        raise TooMany("Too many windows wait to be rendered; ask for fewer at a time.")
    result = asyncio.wrap_future(site.worker.submit(task).future)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise Cancelled
    finally:
        gone.cancel()
        if not result.done():
            site.worker.cancel(task)
            result.add_done_callback(_seen)


def _seen(future: "asyncio.Future[Any]") -> None:
    """Takes note of the error of a result for which nobody waits, about which asyncio would complain."""
    if not future.cancelled():
        future.exception()


async def _gone(request: Request) -> None:
    """Returns when the client has closed the connection."""
    message: Mapping[str, Any] = {}
    while message.get("type") != "http.disconnect":
        message = await request.receive()
