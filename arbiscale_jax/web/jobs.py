"""Defines what a client asks for and what becomes of it; these are the bodies of the HTTP API too."""

import math
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from arbiscale_jax.errors import UserError
from arbiscale_jax.images.proportions import with_side
from arbiscale_jax.inference.checks import output_size
from arbiscale_jax.web.views import PICTURE

Side = Annotated[int, Field(ge=1, le=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
State = Literal["queued", "running", "done", "failed", "cancelled"]


class UpscaleRequest(BaseModel):
    """Asks for a picture at another size; one of scale, size and long_side, by default a scale of 4."""

    model_config = ConfigDict(extra="forbid")
    task: Literal["upscale"]
    picture: str = Field(pattern=f"^{PICTURE}$", description="The id that the upload returned.")
    scale: float | None = Field(None, gt=0, le=2**20, allow_inf_nan=False)
    size: tuple[Side, Side] | None = Field(None, description="[height, width]; the aspect ratio may change.")
    long_side: Side | None = Field(None, description="The longer side; the aspect ratio stays.")
    samples: int = Field(1, ge=1, le=1024, description="The number of different answers.")
    seed: Seed = 0
    restore: float | None = Field(None, ge=0, le=1, description="How much noise is removed, if the model takes it.")

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Returns the (height, width) of the result for a picture.

        Raises:
          UserError: if more than one size is asked for, or a side would have no pixel.
        """
        if sum(one is not None for one in (self.scale, self.size, self.long_side)) > 1:
            raise UserError("scale, size and long_side exclude each other; give one of them.")
        if self.long_side is not None:
            return with_side((height, width), long=self.long_side)
        return output_size((height, width), None if self.size else self.scale or 4.0, self.size)


class GenerateRequest(BaseModel):
    """Asks for new images; image i depends on (seed, i) alone."""

    model_config = ConfigDict(extra="forbid")
    task: Literal["generate"]
    num: int = Field(4, ge=1, le=1024, description="The number of images.")
    first: int = Field(0, ge=0, le=1023, description="The number of the first image.")
    size: tuple[Side, Side] | None = Field(None, description="[height, width]; by default the model's.")
    seed: Seed = 0


JobRequest = Annotated[UpscaleRequest | GenerateRequest, Field(discriminator="task")]


@dataclass
class Job:
    """Says what a client asked for, and how far it is."""

    client: str
    request: dict  # of UpscaleRequest or GenerateRequest
    size: tuple[int, int]  # (height, width) of each result
    views: list[str]  # names of the latents of the results
    bits: int = 8  # of the results, per channel
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    created: float = field(default_factory=time.time)
    state: State = "queued"
    done: float = 0.0  # share of the work, 0 to 1
    seconds: float = 0.0  # of computing
    error: str = ""  # one sentence

    @property
    def ended(self) -> bool:
        """Tells whether nothing more will change."""
        return self.state in ("done", "failed", "cancelled")

    def record(self) -> dict:
        """Returns what is written beside the results."""
        return asdict(self)

    @classmethod
    def known(cls, record: dict) -> "Job | None":
        """Returns the job that a record describes, or None if another version has written it."""
        try:
            return cls(**{**record, "size": tuple(record["size"])})
        except (KeyError, TypeError):
            return None


class JobStatus(BaseModel):
    """Describes a job to its client."""

    id: str
    state: State
    done: float = Field(description="The share of the work that is done, 0 to 1.")
    ahead: int = Field(description="How many pieces of work come before it, while it is queued.")
    seconds: float = Field(description="The seconds of computing so far.")
    error: str = Field(description="Why it failed, one sentence.")
    created: float = Field(description="Seconds since 1970.")
    size: tuple[int, int] = Field(description="[height, width] of each result.")
    results: int = Field(description="The number of results, which are there when the state is done.")
    views: list[str] = Field(description="Names of the results' latents, for /api/views.")
    request: dict = Field(description="What was asked for.")


def status(job: Job, ahead: int) -> JobStatus:
    """Describes a job; `ahead` says how many pieces of work come before it."""
    return JobStatus(
        id=job.id,
        state=job.state,
        done=math.floor(job.done * 1000) / 1000,
        ahead=ahead if job.state == "queued" else 0,
        seconds=round(job.seconds, 2),
        error=job.error,
        created=job.created,
        size=job.size,
        results=len(job.views),
        views=job.views,
        request=job.request,
    )
