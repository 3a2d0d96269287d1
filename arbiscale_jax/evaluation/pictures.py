"""Draws contact sheets, grids over sizes and curves with Pillow; images are uint8 RGB [h, w, 3]."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .protocols import Pair, resize

CELL, GAP, LABEL = 288, 6, 20  # in pixels: the side of a cell, the gap between cells, the height of a line of text
ZOOM = 4  # the zoomed crop is at most this many times smaller than the picture
_INK, _PAPER, _MARK = (20, 20, 20), (255, 255, 255), (230, 30, 30)
_COLORS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207))


def detailed_window(image: np.ndarray, side: int) -> tuple[int, int]:
    """Returns top and left of the side x side window with the largest sum of absolute gradients."""
    grey = image.mean(axis=2)
    detail = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    total = np.pad(detail, ((1, 1), (1, 1))).cumsum(0).cumsum(1)
    rows, cols = (np.arange(0, length - side + 1, max(1, side // 4)) for length in image.shape[:2])
    ends = [np.minimum(starts + side, length - 1) for starts, length in zip((rows, cols), total.shape, strict=True)]
    sums = total[np.ix_(ends[0], ends[1])] - total[np.ix_(rows, ends[1])]
    sums += total[np.ix_(rows, cols)] - total[np.ix_(ends[0], cols)]
    best = np.unravel_index(np.argmax(sums), sums.shape)
    return int(rows[best[0]]), int(cols[best[1]])


def sheet_row(name: str, pair: Pair, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draws one test case: the input, the output of each method and the truth, with the same zoomed crop below each.

    The input is enlarged by repeating pixels. The crop, marked in red, is the most detailed one of the truth.
    """
    height, width = pair.truth.shape[:2]
    times = max(2, -(-CELL * ZOOM // max(height, width)), -(-CELL // min(height, width)))  # whole: pixels of one size
    side = CELL // times
    top, left = detailed_window(pair.truth, side)
    shown = {"input": resize(pair.lr, (height, width), "nearest"), **outputs, "truth": pair.truth}
    h, w = _within(pair.truth.shape[:2], CELL)
    canvas = Image.new("RGB", (len(shown) * (CELL + GAP) + GAP, 2 * LABEL + h + GAP + CELL + GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    low = pair.lr.shape
    about = f"{name}: scale {pair.scale:g}, {low[0]} x {low[1]} to {height} x {width}; below {side} x {side} of it"
    _text(draw, (GAP, 2), about, canvas.width - 2 * GAP)
    for i, (label, image) in enumerate(shown.items()):
        x, y = GAP + i * (CELL + GAP), 2 * LABEL
        _text(draw, (x, LABEL), label, CELL)
        whole = resize(image, (h, w), "lanczos" if label != "input" else "nearest")
        canvas.paste(Image.fromarray(whole), (x, y))
        ratio = h / height
        box = (x + left * ratio, y + top * ratio, x + (left + side) * ratio - 1, y + (top + side) * ratio - 1)
        draw.rectangle(box, outline=_MARK, width=2)
        zoomed = image[top : top + side, left : left + side].repeat(times, axis=0).repeat(times, axis=1)
        canvas.paste(Image.fromarray(zoomed), (x, y + h + GAP))
    return np.asarray(canvas)


def stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures below each other on white."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)


def size_grid(renders: Sequence[np.ndarray], label: str) -> np.ndarray:
    """Draws renders [n, H_s, W_s, 3] of the same n latents at their own sizes, with one row per latent."""
    widths, heights = [max(x.shape[2], 60) for x in renders], max(x.shape[1] for x in renders)
    n = len(renders[0])
    canvas = Image.new("RGB", (sum(widths) + GAP * (len(renders) + 1), 2 * LABEL + n * (heights + GAP)), _PAPER)
    draw, x = ImageDraw.Draw(canvas), GAP
    _text(draw, (GAP, 2), label, canvas.width - GAP)
    for images, width in zip(renders, widths, strict=True):
        _text(draw, (x, LABEL), f"{images.shape[1]} x {images.shape[2]}", width)
        for i, image in enumerate(images):
            canvas.paste(Image.fromarray(image), (x, 2 * LABEL + i * (heights + GAP)))
        x += width + GAP
    return np.asarray(canvas)


def curves(title: str, axis: Sequence[float], lines: Mapping[str, Sequence[float]], top: float | None = None):
    """Draws lines over a common axis of sizes (Fig. 4) as uint8 [h, w, 3]; `top` is the upper end of the values."""
    width, height, left, bottom = 480, 320, 56, 2 * LABEL
    canvas = Image.new("RGB", (width, height + LABEL * len(lines)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    values = np.array(list(lines.values()), np.float64)
    low, high = 0.0, top or float(values.max()) * 1.05 or 1.0
    x_of = np.interp(axis, (min(axis), max(axis)), (left + 10, width - 20)) if len(axis) > 1 else [width / 2]
    draw.text((GAP, 2), title, _INK, _font())
    for share in np.linspace(0, 1, 5):
        y = height - bottom - share * (height - bottom - 2 * LABEL)
        draw.line((left, y, width - 10, y), (220, 220, 220))
        draw.text((GAP, y - 8), f"{low + share * (high - low):.3g}", _INK, _font())
    for x, at in zip(x_of, axis, strict=True):
        draw.text((x - 12, height - bottom + 4), f"{at:g}", _INK, _font())
    for i, (name, line) in enumerate(lines.items()):
        color = _COLORS[i % len(_COLORS)]
        heights = [height - bottom - (v - low) / (high - low) * (height - bottom - 2 * LABEL) for v in line]
        points = list(zip(map(float, x_of), heights, strict=True))
        draw.line(points, color, 2)
        for x, y in points:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), color)
        draw.text((left, height - LABEL / 2 + i * LABEL), name, color, _font())
    return np.asarray(canvas)


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Returns the size scaled to fit into side x side."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _font():
    return ImageFont.load_default(13)


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """Writes text, which is cut to a length of `width` pixels."""
    while draw.textlength(text, _font()) > width and len(text) > 1:
        text = text[:-2] + "…"
    draw.text(place, text, _INK, _font())
