"""Table 1 and Fig. 4 of tables.py: one latent at many sizes, against a picture of one size that is resized."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import features_of, frechet

import arbiscale_jax as aj
from arbiscale_jax import data
from arbiscale_jax.evaluation import distances, features
from arbiscale_jax.evaluation.protocols import fit, resize
from arbiscale_jax.evaluation.self_ssim import self_ssim
from arbiscale_jax.evaluation.statistics import mean_and_error
from arbiscale_jax.runtime.mesh import make_mesh

FIXED = 128  # the size of the generator whose pictures are resized
RENDERED, RESIZED = "rendered at each size", f"rendered at {FIXED}, then resized (bicubic)"


def real_pictures(folder: str, num: int) -> list[np.ndarray]:
    """Reads `num` pictures of a folder or of a known data set, a fixed random choice."""
    source = data.make_source("folder", folder, "all") if Path(folder).is_dir() else data.make_source(folder)
    order = np.random.default_rng(0).permutation(len(source))[:num]
    return [source[int(i)] for i in order]


def generation(model_name: str, folder: str, sizes: Sequence[int], num: int, seeds: Sequence[int]) -> dict:
    """Measures a generator at every size, with `num` pictures on both sides, for each seed.

    Returns: {way: {size: {metric: [mean, standard error over seeds]}}}, and SelfSSIM, {way: [S S]} over the sizes.
    """
    model, extractor = aj.load(model_name), features.make_extractor("vgg", make_mesh())

    real, known = real_pictures(folder, num), {}
    for size in sizes:
        known[size] = features_of(extractor, [fit(image, (size, size)) for image in real])
    found: dict[str, dict[int, list[dict]]] = {way: {size: [] for size in sizes} for way in (RENDERED, RESIZED)}
    matrices: dict[str, list[np.ndarray]] = {RENDERED: [], RESIZED: []}
    for seed in seeds:
        z = model.generate_latent(len(real), seed=seed)
        ways = {RENDERED: {size: model.render(z, (size, size)) for size in sizes}}
        ways[RESIZED] = {size: [resize(x, (size, size)) for x in ways[RENDERED][FIXED]] for size in sizes}
        for way, renders in ways.items():
            for size in sizes:
                found[way][size].append(compare(known[size], features_of(extractor, renders[size])))
            matrices[way] += [self_ssim([renders[size][i] for size in sizes]) for i in range(min(len(real), 50))]
    return {
        "real": len(real),
        "frechet": extractor.frechet,
        "distances": {
            way: {str(size): summary(of_seeds) for size, of_seeds in of_size.items()} for way, of_size in found.items()
        },
        "self_ssim": {way: np.mean(many, axis=0).tolist() for way, many in matrices.items()},
    }


def compare(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Compares features of real and generated pictures, [n d] each."""
    precision, recall = distances.precision_recall(real, fake)
    return {"frechet": frechet(real, fake), "precision": precision, "recall": recall}


def summary(of_seeds: list[dict]) -> dict[str, list[float]]:
    """Averages over seeds: {metric: [mean, standard error]}."""
    return {name: list(mean_and_error([one[name] for one in of_seeds])) for name in of_seeds[0]}
