"""Defines what is asked of /api/jobs and /api/presence."""

import asyncio
import re
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

from arbiscale_jax.images.saving import ENDINGS
from arbiscale_jax.web.delivery import TYPES, Format, write_result
from arbiscale_jax.web.failures import Missing
from arbiscale_jax.web.jobs import JobRequest, JobStatus, UpscaleRequest, status
from arbiscale_jax.web.requests import Client, TheSite
from arbiscale_jax.web.site import Site

router = APIRouter(prefix="/api")


@router.post("/jobs", status_code=202)
def add_job(body: JobRequest, site: TheSite, client: Client) -> JobStatus:
    """Queues a job: a picture to upscale, or images to generate."""
    return _status(site, site.board.add(client, body).id)


@router.get("/jobs")
def list_jobs(site: TheSite, client: Client) -> list[JobStatus]:
    """Lists the client's jobs, the oldest first."""
    return [status(job, site.board.ahead(job)) for job in site.board.of(client)]


@router.get("/jobs/{job}")
def read_job(job: str, site: TheSite) -> JobStatus:
    """Says how far a job is."""
    return _status(site, job)


@router.post("/jobs/{job}/cancel")
def cancel_job(job: str, site: TheSite) -> JobStatus:
    """Cancels a job, unless it has ended."""
    site.board.cancel(job)
    return _status(site, job)


@router.delete("/jobs/{job}", status_code=204)
def remove_job(job: str, site: TheSite) -> None:
    """Cancels a job, and forgets it and its results."""
    site.board.remove(job)


@router.get(
    "/jobs/{job}/results/{number}",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in TYPES.values()}}},
)
async def read_result(
    job: str,
    number: int,
    site: TheSite,
    format: Annotated[Format, Query(description="The format of the file.")] = "png",
    quality: Annotated[int | None, Query(ge=1, le=100, description="For jpg, webp and avif.")] = None,
    metadata: Annotated[bool, Query(description="Whether the file says what the picture's file says.")] = True,
) -> FileResponse:
    """Returns a result as a file, with the bytes that the command line writes."""
    return await asyncio.to_thread(_file, site, job, number, (format, quality, metadata))


@router.get("/presence", response_class=StreamingResponse)
async def stay(site: TheSite, client: Client) -> StreamingResponse:
    """Keeps a connection open; when it ends, the client's jobs are cancelled. Clients that never ask for it stay."""
    return StreamingResponse(site.presence.stay(client, site.closing), media_type="text/plain")


def _status(site: Site, name: str) -> JobStatus:
    job = site.board.find(name)
    return status(job, site.board.ahead(job))


def _file(site: Site, name: str, number: int, options: tuple[Format, int | None, bool]) -> FileResponse:
    """Encodes a result; the file is deleted after it was sent."""
    job, (kind, quality, kept) = site.board.find(name), options
    if job.state != "done":
        raise Missing(f"The job is {job.state}, and has no results; wait until it is done.")
    pixels, metadata = site.results.array(name, number), None
    if kept and job.request["task"] == "upscale":
        metadata = site.pictures.read(UpscaleRequest(**job.request).picture).metadata
    path = write_result(site.scratch, pixels, kind, quality, metadata)
    shown = f"{job.request['task']}_{job.size[0]}x{job.size[1]}_{number}{ENDINGS[kind]}"
    delete = BackgroundTask(Path.unlink, path, missing_ok=True)
    return FileResponse(path, media_type=TYPES[kind], filename=re.sub(r"[^\w.-]", "_", shown), background=delete)
