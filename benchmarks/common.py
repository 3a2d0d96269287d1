"""What the benchmarks share: crops of photographs, PSNR, LPIPS and Fréchet distances, pairs of runs, Markdown."""

import argparse
import ast
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from arbiscale_jax import data
from arbiscale_jax.evaluation import distances, features
from arbiscale_jax.perceptual import load_lpips, lpips


def psnr(a, b) -> float:
    """Peak signal-to-noise ratio of two uint8 images, in dB."""
    return float(10 * np.log10(255**2 / np.mean((np.float64(a) - np.float64(b)) ** 2)))


def resized(x, size, method=Image.Resampling.BICUBIC):
    """Resizes uint8 [h w 3] to size (height, width)."""
    return np.asarray(Image.fromarray(x).resize((size[1], size[0]), method))


def centre_crops(folder: str, side: int) -> dict[str, np.ndarray]:
    """Cuts the central square of every image in a folder, at most `side` a side, a multiple of 8: name -> uint8."""
    source, crops = data.make_source("folder", folder, "all"), {}
    for i in range(len(source)):
        image = source[i]
        n = min(side, *image.shape[:2]) // 8 * 8
        top, left = ((length - n) // 2 for length in image.shape[:2])
        crops[source.name(i)] = image[top : top + n, left : left + n]
    return crops


def make_parser(doc: str, minutes: float, output: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of every benchmark that trains and evaluates."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--val", required=True, help="folder of validation images")
    parser.add_argument("--minutes", type=float, default=minutes, help="of training, each variant")
    parser.add_argument("--side", type=int, default=256, help="of the crops that are evaluated")
    parser.add_argument("--output", type=Path, default=Path(output), help="runs and pictures")
    parser.add_argument("--set", type=override, nargs="*", default=[], metavar="FIELD=VALUE", help="of the config")
    return parser


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two sets of features, [n d] and [m d]."""
    return distances.frechet_distance(*(distances.moments([x]) for x in (a, b)))


def features_of(extractor: features.Extractor, images: Sequence[np.ndarray], batch: int = 20) -> np.ndarray:
    """Extracts features of uint8 pictures of one size, [n d], in whole batches, so that it is one program per size."""
    filled = [*images, *[images[-1]] * (-len(images) % batch)]
    parts = [extractor.apply(np.stack(filled[i : i + batch])) for i in range(0, len(filled), batch)]
    return np.concatenate(parts)[: len(images)]


@cache
def _distance():
    return jax.jit(partial(lpips, load_lpips("alex")))


def lpips_alex(a, b) -> float:
    """LPIPS (AlexNet) of two uint8 images."""
    a, b = (np.float32(x)[None] / 127.5 - 1 for x in (a, b))
    return float(_distance()(a, b)[0])


def paired(after, before) -> str:
    """Mean difference and its standard error over pairs."""
    difference = np.subtract(after, before)
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
    return f"{difference.mean():+.4f} ± {error:.4f}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Formats a table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def override(text: str) -> tuple[str, object]:
    """Parses FIELD=VALUE for argparse, VALUE a Python literal or else a string."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
