"""Writes pictures and animations to files that are complete or not there at all."""

import io
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import tifffile
from PIL import Image, features

from arbiscale_jax.errors import UserError
from arbiscale_jax.images.alpha import on_white
from arbiscale_jax.images.embedding import embedded, pillow_options, png_chunks, tiff_options
from arbiscale_jax.images.kinds import pillow_image, to_picture
from arbiscale_jax.images.picture import Metadata, Picture
from arbiscale_jax.images.row_formats import page_options
from arbiscale_jax.images.streams import open_stream, reported
from arbiscale_jax.runtime.whole_files import replacing

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}
FRAME_FORMATS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG", ".avif": "AVIF"} | {
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
ENDINGS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tif", "avif": ".avif"}  # of formats by their names
QUALITY = {"JPEG": 95, "WEBP": 95, "AVIF": 90}
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535, "GIF": 65535}
_OPAQUE = 128  # the alpha from which on a pixel of a GIF file shows
_HEADER = 33  # bytes of a PNG file before its second chunk


def save(
    path: str | PathLike,
    picture: Any,
    *,
    quality: int | None = None,
    metadata: Metadata | EllipsisType | None = ...,
) -> None:
    """Writes a picture as the ending of the name says: .png, .jpg, .webp, .tif, .tiff or .avif.

    Grey stays one channel in PNG, JPEG and TIFF; alpha is kept, except that JPEG shows the picture on white; 16 bits
    are kept in PNG and TIFF and rounded to 8 elsewhere.

    Args:
      path: the file; missing folders are made.
      picture: a Picture, or what `to_picture` takes.
      quality: from 1 to 100 for JPEG (95 by default), WebP (95; 100 is without loss) and AVIF (90); PNG and TIFF are
        always without loss.
      metadata: what the file says besides the pixels; by default what the picture says, and None for nothing.

    Raises:
      UserError: if the format is not one of these or cannot hold a picture as large, or the file cannot be written.
    """
    path, picture = Path(path), to_picture(picture)
    pixels = picture.pixels
    kind = check_file(path, (pixels.shape[0], pixels.shape[1]), quality)
    held = picture.metadata if isinstance(metadata, EllipsisType) else metadata
    if kind == "TIFF" or (kind == "PNG" and pixels.dtype == np.uint16):
        with open_stream(path, pixels.shape[:2], pixels.shape[2], pixels.dtype, held) as stream:
            stream.write(pixels)
        return
    kept, convert = embedded(held, pixels.shape[2])
    image = pillow_image(on_white(convert(pixels)) if kind == "JPEG" else convert(pixels))
    write_whole(path, _encoded([image], kind, quality, kept))


def save_frames(
    path: str | PathLike,
    frames: Iterable[Any],
    durations: Sequence[float | None] = (),
    loop: int | None = 0,
    *,
    quality: int | None = None,
    metadata: Metadata | None = None,
) -> None:
    """Writes an animation (.gif, .webp, .png, .apng or .avif) or the pages of a .tif or .tiff file.

    Animations have 8 bits; GIF has 256 colours a frame and shows or hides each pixel. Equal frames that follow each
    other become one that is shown longer in GIF and PNG. TIFF keeps 16 bits, and pages may differ in size.

    Args:
      path: the file; missing folders are made.
      frames: Pictures, or what `to_picture` takes; those of an animation have one size.
      durations: how long each frame is shown, in milliseconds; without effect on pages.
      loop: how often the animation is shown, 0 for without end.
      quality: as in `save`.
      metadata: what the file says besides the pixels; in TIFF each page says it.

    Raises:
      UserError: if the format is not one of these, there is no frame, frames of an animation differ in size, or the
        file cannot be written.
    """
    path = Path(path)
    kind, pictures = _format_of(path, FRAME_FORMATS), (to_picture(one) for one in frames)
    if kind == "TIFF":
        _save_pages(path, pictures, metadata)
        return
    images, kept = [], metadata or Metadata()
    for picture in pictures:
        check_file(path, (picture.pixels.shape[0], picture.pixels.shape[1]), quality, frames=True)
        if images and images[0].size != picture.pixels.shape[1::-1]:
            raise UserError(f"{path} cannot hold frames of several sizes; write them as a TIFF file or one by one.")
        kept, convert = embedded(metadata, picture.pixels.shape[2])
        images.append(pillow_image(convert(picture.pixels)))
    if not images:
        raise UserError(f"{path} needs at least one frame.")
    if len({image.mode for image in images}) > 1 or kind == "GIF":
        mode = "RGBA" if any(image.mode in ("LA", "RGBA") for image in images) else "RGB"
        images = [image.convert(mode) for image in images]
    shown = [float(one or 0) for one in durations] or [100.0] * len(images)
    if len(shown) != len(images):
        raise UserError(f"{path} has {len(images)} frames, but {len(shown)} durations were given; give one for each.")
    times = {"duration": [round(one) for one in shown], "loop": loop or 0}
    write_whole(path, _encoded(images, kind, quality, kept, times))


def write_whole(path: str | PathLike, content: bytes | memoryview) -> None:
    """Writes a file under a temporary name in its folder and then renames it.

    Raises:
      UserError: if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    with reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(content)


def check_file(path: str | PathLike, size: tuple[int, int], quality: int | None = None, *, frames: bool = False) -> str:
    """Checks that a file can be written as `save` or `save_frames` would.

    Args:
      path: the file, which need not exist.
      size: (height, width) of the picture or its frames.
      quality: as in `save`.
      frames: whether it is to hold an animation or pages.

    Returns:
      Pillow's name of the format.

    Raises:
      UserError: if the format is not written, or cannot hold a picture as large, or there is no such quality.
    """
    path = Path(path)
    kind = _format_of(path, FRAME_FORMATS if frames else FORMATS)
    if quality is not None and not 1 <= quality <= 100:
        raise UserError(f"The quality of {path} cannot be {quality}; give a number from 1 to 100.")
    longest = _LONGEST_SIDE.get(kind)
    if longest and max(size) > longest:
        raise UserError(
            f"{path} cannot have {size[0]} x {size[1]} pixels, since {kind} allows {longest} a side; write a PNG or "
            "TIFF file."
        )
    return kind


def _format_of(path: Path, formats: dict[str, str]) -> str:
    kind = formats.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path} names no format that is written; give a name that ends in {', '.join(formats)}.")
    if kind == "AVIF" and not features.check("avif"):
        raise UserError(f"{path} needs a Pillow that writes AVIF; install pillow 11.3 or newer.")
    return kind


def _encoded(
    images: list[Image.Image], kind: str, quality: int | None, metadata: Metadata, times: dict | None = None
) -> bytes:
    """Encodes one image, or an animation if `times` are given."""
    options: dict[str, Any] = dict(times or {})
    if kind in QUALITY:
        options["quality"] = quality = QUALITY[kind] if quality is None else quality
        if kind == "WEBP":
            options |= {"lossless": quality == 100, "exact": True}
        elif kind == "JPEG":
            options["subsampling"] = "4:4:4" if quality >= 90 else "4:2:0"
        else:
            grey = images[0].mode == "L"
            options["subsampling"] = "4:0:0" if grey else "4:4:4" if quality >= 90 else "4:2:0"
    if kind != "PNG":
        options |= pillow_options(metadata, kind)
    if times is not None:
        options |= {"save_all": True, "append_images": images[1:]}
        if kind == "GIF":
            images = [_clear_or_not(image) for image in images]
            options |= {"append_images": images[1:], "disposal": 2, "optimize": False, "loop": times["loop"] - 1}
            if times["loop"] in (0, 1):
                options["loop"] = None if times["loop"] else 0
    buffer = io.BytesIO()
    images[0].save(buffer, kind, **{key: value for key, value in options.items() if value is not None})
    content = buffer.getvalue()
    return content[:_HEADER] + png_chunks(metadata) + content[_HEADER:] if kind == "PNG" else content


def _clear_or_not(image: Image.Image) -> Image.Image:
    """Makes each pixel of an RGBA image opaque or clear, as GIF has it."""
    if image.mode != "RGBA":
        return image
    pixels = np.array(image)
    pixels[..., 3] = np.where(pixels[..., 3] >= _OPAQUE, 255, 0)
    return Image.fromarray(pixels)


def _save_pages(path: Path, pictures: Iterable[Picture], metadata: Metadata | None) -> None:
    """Writes pages one by one; EXIF directories are left out."""
    written = 0
    with reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            with tifffile.TiffWriter(part, byteorder="<", ome=False) as file:
                for picture in pictures:
                    channels = picture.pixels.shape[2]
                    kept, convert = embedded(metadata, channels)
                    pixels = convert(picture.pixels)
                    options = page_options(channels) | tiff_options(kept)
                    file.write(pixels if channels > 1 else pixels[..., 0], **options)
                    written += 1
            if not written:
                raise UserError(f"{path} needs at least one page.")
