"""Defines what is asked of /api/server, /api/examples and /api/pictures."""

import asyncio

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

import arbiscale_jax
from arbiscale_jax.inference import Model
from arbiscale_jax.web.delivery import formats
from arbiscale_jax.web.examples_shown import EXAMPLES, example
from arbiscale_jax.web.picture_store import StoredPicture
from arbiscale_jax.web.requests import Client, TheSite, body_of

router = APIRouter(prefix="/api")
UPLOAD_SECONDS = 300.0  # that a file may take to arrive


class ModelInfo(BaseModel):
    """Describes a model of the server."""

    name: str
    size: int = Field(description="The side in pixels of the images for which it was trained.")
    restore: bool = Field(description="Whether it is told how much noise to remove.")


class FormatInfo(BaseModel):
    """Describes a format of results."""

    name: str
    quality: int | None = Field(description="The default of its quality; null for a format without loss.")


class ExampleInfo(BaseModel):
    """Describes a photograph to try the server with."""

    name: str
    title: str


class ServerInfo(BaseModel):
    """Describes the server."""

    version: str
    upscale: ModelInfo | None
    generate: ModelInfo | None
    formats: list[FormatInfo]
    examples: list[ExampleInfo]
    limits: dict[str, float]


class PictureInfo(BaseModel):
    """Describes a picture that was uploaded."""

    id: str = Field(description="The beginning of the SHA-256 of its file.")
    height: int
    width: int
    channels: int = Field(description="1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.")
    bits: int = Field(description="Bits per channel.")
    format: str
    frames: int = Field(description="The number of frames or pages, of which the first alone is used.")


@router.get("/server")
def read_server(site: TheSite) -> ServerInfo:
    """Says what the server can do, and how much it takes."""
    examples = [ExampleInfo(name=name, title=about.title) for name, about in EXAMPLES.items()]
    limits = {
        name: getattr(site.limits, name)
        for name in ("upload_bytes", "input_pixels", "output_pixels", "window_pixels", "samples", "images")
    }
    return ServerInfo(
        version=arbiscale_jax.__version__,
        upscale=_about(site.room.upscaler),
        generate=_about(site.room.generator),
        formats=[FormatInfo(**one) for one in formats()],
        examples=examples,
        limits=limits,
    )


@router.get("/memory")
def read_memory(site: TheSite) -> dict[str, int]:
    """Says how many bytes the server holds in memory: latents, features and encoded windows."""
    return {**site.room.memory(), "windows": site.encoded.nbytes()}


@router.get("/examples/{name}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
def read_example(name: str) -> Response:
    """Returns a photograph to try the server with, as a PNG file."""
    return Response(example(name), media_type="image/png", headers={"cache-control": "private, max-age=86400"})


@router.post(
    "/pictures",
    status_code=201,
    openapi_extra={"requestBody": {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def add_picture(request: Request, site: TheSite, client: Client) -> PictureInfo:
    """Stores a picture: the body is an image file of any format that is read."""
    async with site.uploads, asyncio.timeout(UPLOAD_SECONDS):
        content = await body_of(request, site.limits.upload_bytes)
    busy = site.board.busy_pictures()
    return _info(await asyncio.to_thread(site.pictures.add, client, content, busy))


@router.get("/pictures")
def list_pictures(site: TheSite, client: Client) -> list[PictureInfo]:
    """Lists the client's pictures."""
    return [_info(one) for one in site.pictures.of(client)]


@router.get("/pictures/{picture}")
def read_picture(picture: str, site: TheSite) -> PictureInfo:
    """Describes a picture."""
    return _info(site.pictures.find(picture))


@router.delete("/pictures/{picture}", status_code=204)
def remove_picture(picture: str, site: TheSite, client: Client) -> None:
    """Removes a picture of the client."""
    site.pictures.remove(client, picture)


def _about(model: Model | None) -> ModelInfo | None:
    if model is None:
        return None
    config = model.config
    return ModelInfo(name=model.name, size=config["sampling"]["size"], restore=bool(config["unet"]["strength"]))


def _info(one: StoredPicture) -> PictureInfo:
    fields = {name: getattr(one, name) for name in PictureInfo.model_fields}
    return PictureInfo(**fields)
