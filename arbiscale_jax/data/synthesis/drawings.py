"""Draws pictures with letters, lines and flat colours, which photographs lack.

Pillow draws each picture at four times its size, and it is then reduced. Each kind of drawing takes a numpy generator
and the side S of the picture and returns uint8 [S S 3]. With the same version of Pillow, a generator in the same state
gives the same picture.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..sources import Source

_FINER = 4  # each picture is drawn with a side that is this many times larger, and then reduced
_LETTERS = "eeeettaaooiinnsshhrrddlluccmmwwffggyyppbbvkxjqz"  # by frequency; the font in Pillow has no accents
_SIGNS = "0123456789.,;:!?%&@#()[]+-=/*$\"'"


def drawing(seed: int, index: int, side: int) -> np.ndarray:
    """Returns drawing number `index` of a seed, uint8 [side side 3]; letters, shapes and lines take turns."""
    rng = np.random.default_rng([seed % 2**32, index])
    return (lettering, shapes, lettering, lines)[index % 4](rng, side)


def lettering(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draws a page of words in one to three sizes; some pages have lines and boxes, and some are turned."""
    paper, ink = _paper_and_ink(rng)
    canvas = _canvas(side, paper)
    draw, y = ImageDraw.Draw(canvas), 0.0
    sizes = np.exp(rng.uniform(math.log(9), math.log(72), rng.integers(1, 4)))  # in pixels of the finished picture
    while y < canvas.height:
        size = float(rng.choice(sizes)) * _FINER
        font, x, colour = ImageFont.load_default(size), float(rng.uniform(-2, 1) * size), ink
        bold = round(size * rng.uniform(0.01, 0.05)) if rng.random() < 0.3 else 0  # pixels that widen each letter
        if rng.random() < 0.15:
            colour = _colour(rng)
        if rng.random() < 0.1:  # a box behind the line, with letters in the colour of the paper
            draw.rectangle((0, y, canvas.width, y + 1.25 * size), fill=colour)
            colour = paper
        while x < canvas.width:
            word = _word(rng)
            draw.text((x, y), word, font=font, fill=colour, stroke_width=bold, stroke_fill=colour)
            x += draw.textlength(word + " ", font=font) + len(word) * bold
        y += size * rng.uniform(1.15, 1.6)
        if rng.random() < 0.12:
            draw.line((0, y, canvas.width, y), fill=ink, width=int(rng.integers(1, 3)) * _FINER)
    if rng.random() < 0.35:
        angle = rng.normal(0, 8) if rng.random() < 0.7 else rng.uniform(0, 360)
        canvas = canvas.rotate(angle, Image.Resampling.BICUBIC, fillcolor=paper)
    return _finish(canvas, side)


def shapes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draws ellipses, boxes and polygons in flat colours over a flat background or a gradient."""
    canvas = _gradient(rng, side) if rng.random() < 0.5 else _canvas(side, _colour(rng))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(6, 40)):
        centre, radius = rng.uniform(0, canvas.width, 2), canvas.width * np.exp(rng.uniform(-4.5, -1.2))
        box = (*(centre - radius), *(centre + radius * rng.uniform(0.3, 1.0, 2)))
        outline = _colour(rng) if rng.random() < 0.3 else None
        style = dict(fill=_colour(rng), outline=outline, width=int(rng.integers(1, 6)) * _FINER)
        match rng.integers(4):
            case 0:
                draw.ellipse(box, **style)
            case 1:
                draw.rectangle(box, **style)
            case 2:
                draw.rounded_rectangle(box, radius=radius / 3, **style)
            case _:
                angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
                corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
                draw.polygon([tuple(corner) for corner in corners.tolist()], fill=style["fill"])
    return _finish(canvas, side)


def lines(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draws straight and curved lines, circles and grids in one to three inks."""
    paper, ink = _paper_and_ink(rng)
    canvas = _canvas(side, paper)
    draw, inks = ImageDraw.Draw(canvas), [ink, _colour(rng), ink]
    if rng.random() < 0.5:
        step, width = rng.uniform(6, 48) * _FINER, int(rng.integers(1, 3) * _FINER)
        for at in np.arange(0, canvas.width, step):
            draw.line((at, 0, at, canvas.width), fill=inks[1], width=width)
            draw.line((0, at, canvas.width, at), fill=inks[1], width=width)
    for _ in range(rng.integers(8, 50)):
        colour, width = inks[rng.integers(3)], max(1, int(rng.exponential(2.0) * _FINER))
        start, angle = rng.uniform(0, canvas.width, 2), rng.uniform(0, 2 * np.pi)
        if rng.random() < 0.25:
            reach = canvas.width * rng.uniform(0.02, 0.3)
            draw.ellipse((*(start - reach), *(start + reach)), outline=colour, width=width)
            continue
        t = np.linspace(0, canvas.width * rng.uniform(0.1, 0.9), 60)
        turn = angle + rng.normal(0, 1.5) * t / canvas.width * (rng.random() < 0.6)
        steps = np.diff(t, prepend=0)[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
        points = [tuple(point) for point in (start + np.cumsum(steps, 0)).tolist()]
        draw.line(points, fill=colour, width=width, joint="curve")
    if rng.random() < 0.4:
        canvas = canvas.rotate(rng.uniform(0, 90), Image.Resampling.BICUBIC, fillcolor=paper)
    return _finish(canvas, side)


def sheets(pictures: Sequence[np.ndarray] | Source, seed: int, count: int, side: int) -> Iterator[np.ndarray]:
    """Yields sheets of four different pictures, laid out 2 x 2.

    Args:
      pictures: uint8 [h w 3].
      seed: seed of the order of the pictures.
      count: number of sheets; there are fewer if there are not enough pictures.
      side: side of a sheet in pixels.

    Yields:
      A sheet, uint8 [side side 3].
    """
    order = np.random.default_rng(seed % 2**32).permutation(len(pictures))
    half = side // 2
    for first in range(0, min(4 * count, len(order) - 3), 4):
        sheet = np.zeros((side, side, 3), np.uint8)
        for at, index in enumerate(order[first : first + 4]):
            i, j = divmod(at, 2)
            size = (side - half if j else half, side - half if i else half)  # width, height
            small = Image.fromarray(np.asarray(pictures[int(index)])).resize(size, Image.Resampling.BICUBIC)
            sheet[i * half : i * half + size[1], j * half : j * half + size[0]] = np.asarray(small)
        yield sheet


def _canvas(side: int, colour) -> Image.Image:
    """Makes a canvas of one colour, _FINER times as large as the picture."""
    return Image.new("RGB", (side * _FINER, side * _FINER), colour)


def _finish(canvas: Image.Image, side: int) -> np.ndarray:
    """Reduces a canvas to the finished picture."""
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX))


def _gradient(rng: np.random.Generator, side: int) -> Image.Image:
    """Blends two colours linearly along a direction."""
    angle, first, second = rng.uniform(0, 2 * np.pi), np.array(_colour(rng)), np.array(_colour(rng))
    y, x = np.mgrid[0:side, 0:side] / side
    share = (x * np.cos(angle) + y * np.sin(angle))[..., None]
    share = (share - share.min()) / (share.max() - share.min())
    picture = Image.fromarray(np.uint8(np.rint(first + share * (second - first))))
    return picture.resize((side * _FINER, side * _FINER), Image.Resampling.BILINEAR)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draws a colour: a third of them are grey, black or white, the others have any hue and are often saturated."""
    if rng.random() < 0.33:
        grey = int(rng.choice([0, 255, int(rng.integers(256))]))
        return grey, grey, grey
    red, green, blue = (int(v) for v in np.rint(255 * rng.beta(0.6, 0.6, 3)))
    return red, green, blue


def _paper_and_ink(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draws the colours of paper and ink, 90 or more levels of luma apart; the ink is darker more often than not."""
    if rng.random() < 0.4:
        light, dark = (255, 255, 255), (int(rng.integers(60)),) * 3
        return (light, dark) if rng.random() < 0.8 else (dark, light)
    luma = np.array([0.299, 0.587, 0.114])
    while True:
        paper, ink = sorted((_colour(rng), _colour(rng)), key=lambda colour: -float(luma @ colour))
        if luma @ paper - luma @ ink >= 90:
            return (paper, ink) if rng.random() < 0.67 else (ink, paper)


def _word(rng: np.random.Generator) -> str:
    """Draws a word of random letters, or a run of digits and signs."""
    kind, length = rng.random(), rng.integers(1, 11)
    letters = _SIGNS if kind < 0.15 else _LETTERS
    word = "".join(letters[i] for i in rng.integers(len(letters), size=length))
    return word.upper() if kind > 0.85 else word.capitalize() if kind > 0.7 else word
