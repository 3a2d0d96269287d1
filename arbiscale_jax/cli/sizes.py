"""Reads output sizes from flags and checks them before anything is computed; sizes are (height, width)."""

import math
import re
from typing import NamedTuple

from arbiscale_jax.errors import UserError
from arbiscale_jax.images.proportions import with_side

MAX_OUTPUT_PIXELS = 400_000_000  # the default of --max-output-pixels


def parse_size(text: str, flag: str) -> tuple[int, int]:
    """Reads a size from 'HEIGHTxWIDTH'.

    Raises:
      UserError: if the text has another form, or a side is 0.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})[xX×]([0-9]{1,9})\s*", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < 1:
        raise UserError(f"{flag}={text} is no size; write HEIGHTxWIDTH in pixels, such as {flag}=192x256.")
    return size


class Target(NamedTuple):
    """Says how large the outputs are; exactly one field is not None."""

    scale: float | None = None  # the factor
    size: tuple[int, int] | None = None  # (height, width) of every output
    short: int | None = None  # the shorter side of every output, whose sides have the proportion of its input's
    long: int | None = None  # likewise the longer side

    def of(self, shape: tuple[int, int], name: str) -> tuple[int, int]:
        """Returns the (height, width) of the output for an input of `shape`, which messages call `name`.

        Raises:
          UserError: if a side would have no pixel.
        """
        if self.size:
            return self.size
        if self.scale is not None:
            return scaled(shape, self.scale, name)
        return with_side(shape, long=self.long, short=self.short)


def parse_target(opts: dict) -> Target:
    """Reads --scale, --size and --long-side, of which one at most is given; the default is a scale of 4.

    Raises:
      UserError: if a value has another form or is out of range.
    """
    if opts["size"]:
        if re.fullmatch(r"\s*[0-9]{1,9}\s*", opts["size"]) and int(opts["size"]):
            return Target(short=int(opts["size"]))
        return Target(size=parse_size(opts["size"], "--size"))
    if opts["long-side"]:
        return Target(long=opts["long-side"])
    scale = 4.0 if opts["scale"] is None else opts["scale"]
    check_scale(scale)
    return Target(scale=scale)


def parse_sizes(text: str, flag: str) -> list[tuple[int, int]]:
    """Reads sizes, separated by commas, each HEIGHTxWIDTH or the side of a square; errors are as in `parse_size`."""
    sides = (part.strip() for part in text.split(","))
    return [parse_size(f"{side}x{side}" if side.isdecimal() else side, flag) for side in sides]


def parse_box(text: str) -> tuple[int, int, int, int]:
    """Reads (top, left, height, width) from 'TOP,LEFT,HEIGHT,WIDTH'.

    Raises:
      UserError: if the text has another form, or the height or width is 0.
    """
    if not re.fullmatch(r"\s*[0-9]{1,12}(\s*,\s*[0-9]{1,12}){3}\s*", text):
        raise UserError(f"--box={text} is no window; write TOP,LEFT,HEIGHT,WIDTH, such as --box=0,100,256,256.")
    top, left, height, width = (int(part) for part in text.split(","))
    if not (height and width):
        raise UserError(f"--box={text} has no pixels; give a height and a width above 0.")
    return top, left, height, width


def check_box(box, size: tuple[int, int], name: str) -> None:
    """Raises UserError if the window (top, left, height, width) is not inside the output of the image `name`."""
    top, left, height, width = box
    if top + height > size[0] or left + width > size[1]:
        raise UserError(f"--box={','.join(map(str, box))} is not inside the {size[0]} x {size[1]} pixels of {name}.")


def check_scale(scale: float) -> None:
    """Raises UserError if the scale is not a positive finite number."""
    if not (math.isfinite(scale) and scale > 0):
        raise UserError(f"--scale={scale:g} is no scale; give a number above 0, such as --scale=3.7.")


def scaled(size: tuple[int, int], scale: float, name: str) -> tuple[int, int]:
    """Returns round(scale * size); error messages call the image `name`.

    Raises:
      UserError: if a side would have no pixel left.
    """
    height, width = (round(min(side * scale, 1e18)) for side in size)  # 1e18, since side * scale may be inf
    if min(height, width) < 1:
        raise UserError(
            f"--scale={scale:g} makes {height} x {width} pixels of {name} ({size[0]} x {size[1]}); give a larger scale."
        )
    return height, width


def check_output(size: tuple[int, int], max_pixels: int) -> None:
    """Raises UserError if an image of this size has more than max_pixels pixels."""
    if size[0] * size[1] > max_pixels:
        raise UserError(
            f"An output of {size[0]:.6g} x {size[1]:.6g} pixels is larger than --max-output-pixels={max_pixels}; lower "
            "the scale or size, raise that flag if your disk allows, or render a window of it with --box."
        )
