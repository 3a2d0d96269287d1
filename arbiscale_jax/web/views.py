"""Names latents by what they are sampled from, so that a name says everything that is needed to sample one again.

`photo-PICTURE-SEED-ANSWER-RESTORE` is an answer for a stored picture, `image-SEED-NUMBER` is a generated image. Names
appear in addresses that are shared, and stay valid over restarts.
"""

import re
from typing import NamedTuple

from arbiscale_jax.errors import UserError

PICTURE = r"[0-9a-f]{32}"  # the name of a stored picture, the beginning of the SHA-256 of its file
_NUMBER = r"0|[1-9][0-9]{0,18}"
_PHOTO = re.compile(rf"photo-({PICTURE})-({_NUMBER})-({_NUMBER})-(auto|0|1|0\.[0-9]{{1,3}})")
_IMAGE = re.compile(rf"image-({_NUMBER})-({_NUMBER})")


class PhotoView(NamedTuple):
    """Names the latent of an answer for a picture."""

    picture: str
    seed: int
    answer: int
    restore: float | None

    def __str__(self) -> str:
        restore = "auto" if self.restore is None else f"{round(self.restore, 3):g}"
        return f"photo-{self.picture}-{self.seed}-{self.answer}-{restore}"


class ImageView(NamedTuple):
    """Names the latent of a generated image."""

    seed: int
    number: int

    def __str__(self) -> str:
        return f"image-{self.seed}-{self.number}"


View = PhotoView | ImageView


def parse_view(text: str) -> View:
    """Reads the name of a latent.

    Raises:
      UserError: if it is none.
    """
    if found := _PHOTO.fullmatch(text):
        restore = None if found[4] == "auto" else float(found[4])
        return PhotoView(found[1], int(found[2]), int(found[3]), restore)
    if found := _IMAGE.fullmatch(text):
        return ImageView(int(found[1]), int(found[2]))
    raise UserError(
        "A view is called photo-PICTURE-SEED-ANSWER-RESTORE or image-SEED-NUMBER; take the name that a job lists."
    )
