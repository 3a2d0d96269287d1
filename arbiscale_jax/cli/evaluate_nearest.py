"""Lists and draws the generated images that are nearest to training pictures, for the metric nearest."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arbiscale_jax import data
from arbiscale_jax.cli import evaluation_files
from arbiscale_jax.errors import UserError
from arbiscale_jax.evaluation import generation, nearest, pictures, protocols, report
from arbiscale_jax.images import save
from arbiscale_jax.images.saving import write_whole
from arbiscale_jax.runtime.progress import counted_progress

SHOWN = 8  # images in a picture
LEAST = 2  # training pictures


class Training(NamedTuple):
    """Holds the features of the training pictures."""

    source: data.Source
    numbers: np.ndarray  # the number of each row's picture in the source, [n]
    titles: list[str]  # the name of each row's picture, [n]
    features: np.ndarray  # [n d]


def read_training(opts: dict, job: generation.Job) -> Training:
    """Computes the features of the pictures of --train at the first size.

    Args:
      opts: the values of all flags.
      job: how features of generated images are computed.

    Raises:
      UserError: if there are fewer than two.
    """
    source = evaluation_files.open_source({**opts, "data": opts["train"], "split": "all"})
    with counted_progress(len(source)) as advance:
        advance(0, "training pictures")
        own = job._replace(sizes=job.sizes[:1], patch=0, advance=advance)
        paths = generation.real_features(source, generation.source_stamp(source), len(source), own, "train")
    key = generation.size_name(job.sizes[0])
    if (count := generation.count_rows(paths, key)) < LEAST:
        raise UserError(f"--train={opts['train']} holds {count} pictures that can be read; give {LEAST} at least.")
    features = np.concatenate(list(generation.read_shards(paths, key)))
    numbers, titles = generation.read_numbers(paths), source.titles()
    return Training(source, numbers, [titles[number] for number in numbers], features)


def compare(training: Training, fake: np.ndarray) -> tuple[list[nearest.Neighbour], dict]:
    """Finds the nearest training pictures of generated ones [n d].

    Returns:
      The neighbours, those with the smallest ratio first.
      A row for the tables.
    """
    styles = [data.parse_name(name).style for name in training.titles]
    found = sorted(nearest.find_neighbours(fake, training.features, styles), key=lambda one: one.ratio)
    ratios = np.array([one.ratio for one in found])
    row = {"images": len(fake), "training": len(training.features), "nearer": int(np.sum(ratios < 1))}
    return found, row | {"least": float(ratios.min()), "median": float(np.median(ratios))}


def write_list(path: Path, training: Training, found: Sequence[nearest.Neighbour]) -> None:
    """Writes a CSV file with a row for each generated image, those with the smallest ratio first."""
    rows = [
        {"image": one.number, "nearest": training.titles[one.nearest], "distance": one.distance}
        | {"its_neighbour": training.titles[one.other], "their_distance": one.own, "ratio": one.ratio}
        for one in found
    ]
    write_whole(path, report.to_csv(rows).encode(errors="backslashreplace"))


def draw(path: Path, training: Training, found: Sequence[nearest.Neighbour], renders: np.ndarray) -> None:
    """Draws the images with the smallest ratio, each with its nearest training picture and that one's neighbour.

    Args:
      path: the file.
      training: the training pictures.
      found: the neighbours of the images that are drawn.
      renders: these images, uint8 [n, H, W, 3].
    """
    size = renders.shape[1:3]
    columns = [renders]
    for rows in ([one.nearest for one in found], [one.other for one in found]):
        columns.append(np.stack([protocols.fit(training.source[int(training.numbers[row])], size) for row in rows]))
    save(path, pictures.size_grid(columns, "generated, the nearest training picture, its own neighbour"))
