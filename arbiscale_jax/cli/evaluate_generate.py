"""Runs the task generate of `arbiscale eval`."""

from pathlib import Path

import numpy as np

import arbiscale_jax
from arbiscale_jax.cli import evaluation_files, sampling, sizes
from arbiscale_jax.errors import UserError
from arbiscale_jax.evaluation import features, generation, pictures, protocols, report, speed
from arbiscale_jax.evaluation.distortion import SSIM_WINDOW
from arbiscale_jax.images import save
from arbiscale_jax.images.saving import write_whole
from arbiscale_jax.runtime.mesh import make_mesh
from arbiscale_jax.runtime.progress import counted_progress

GRID_IMAGES = 6  # number of rows in the grid over sizes
_OF_REAL = {"fd", "kd", "precision", "recall"}  # metrics that need real images


def main(opts: dict) -> None:
    """Generates images with every model, measures them at every size, and writes tables, grids and curves."""
    metrics = opts["metrics"]
    needs_real = bool(_OF_REAL & set(metrics))
    if needs_real and not opts["data"]:
        raise UserError("Give --data, the real images to compare with; without it, --metrics=selfssim,speed.")
    source = evaluation_files.open_source(opts) if opts["data"] else None
    models = _models(opts["model"])
    shape = _sizes(opts, next(iter(models.values())))
    with_self_ssim = "selfssim" in metrics and len(shape) > 1
    mesh = make_mesh()
    batch_size = -(-opts["batch-size"] // mesh.size) * mesh.size
    extractor, real, num = None, [], opts["num"] or generation.SELF_SSIM_IMAGES

    def job(advance) -> generation.Job:
        return generation.Job(shape, extractor, batch_size, opts["output"] / "features", advance)

    if needs_real and source is not None:
        extractor = features.make_extractor(opts["features"], mesh, opts["inception-weights"])
        stamp, asked = generation.source_stamp(source), min(opts["num"] or len(source), len(source))
        with counted_progress(asked) as advance:
            advance(0, "real images")
            real = generation.real_features(source, stamp, asked, job(advance))
        num = min(asked, generation.count_rows(real, generation.size_name(shape[0])))
        if num < 2:
            raise UserError(f"--data={opts['data']} holds {num} images that can be read; distances need two at least.")
    options = dict(seed=opts["seed"], **sampling.given(opts))

    rows, matrices, timings, found = [], {}, [], []
    for label, model in models.items():
        spread = generation.spread(model, mesh)
        if real or with_self_ssim:
            with counted_progress(num) as advance:
                advance(0, f"{label}: generating")
                wanted = dict(with_self_ssim=with_self_ssim, **options)
                found = generation.generated_features(spread, num, job(advance), mesh, **wanted)
        if extractor is not None:
            measured = generation.measure(real, found, num, shape, extractor, metrics)
            rows += [{"method": label, **row} for row in measured]
        if with_self_ssim:
            matrices[label] = generation.self_ssim_matrix(found, num)
        if "speed" in metrics:
            timings += [{"method": label, **row} for row in speed.measure_model(model, None, shape, **options)]
        renders = generation.generated_batch(spread, 0, batch_size, shape, mesh, **options)
        grid = pictures.size_grid([images[:GRID_IMAGES] for images in renders], label)
        save(opts["output"] / f"grid_{label.strip('/').replace('/', '_')}.png", grid)
    _write_curves(opts["output"], shape, rows, matrices, extractor)
    _write_tables(opts, models, shape, rows, matrices, timings, _notes(opts, num, extractor, with_self_ssim))


def _sizes(opts: dict, model) -> list[generation.Size]:
    """Returns the sizes to measure, and raises UserError for sizes that cannot be measured."""
    side = model.config["sampling"]["size"]
    shape = sizes.parse_sizes(opts["sizes"], "--sizes") if opts["sizes"] else [(side, side)]
    for size in shape:
        sizes.check_output(size, sizes.MAX_OUTPUT_PIXELS)
    if len(set(shape)) < len(shape):
        raise UserError(f"--sizes={opts['sizes']} names a size twice; give each once.")
    if "selfssim" in opts["metrics"] and len(shape) > 1 and min(map(min, shape)) < SSIM_WINDOW:
        raise UserError(
            f"--sizes={opts['sizes']}: SelfSSIM needs sizes of at least {SSIM_WINDOW} pixels per side; leave it out."
        )
    if opts["metrics"] == ["selfssim"] and len(shape) < 2:
        raise UserError("SelfSSIM compares sizes; give --sizes=128,160,192 or others, two at least.")
    return shape


def _write_tables(opts: dict, models: dict, shape, rows, matrices: dict, timings, notes: list[str]) -> None:
    tables = {"Against real images": rows}
    for label, (mean, error, n) in matrices.items():
        tables[f"SelfSSIM of {label} over {n} latents: row i, column j: the render at size j resized to size i"] = [
            _matrix_row(size, shape, *line) for size, *line in zip(shape, mean, error, strict=True)
        ]
    tables["Speed: median seconds for one image, without compilation; memory in MiB"] = timings
    markdown = evaluation_files.sections(f"Generation: {', '.join(models)}", tables, notes)
    content = evaluation_files.settings(opts, models) | {"notes": notes, "distances": rows, "speed": timings}
    parts = ("mean", "se", "images")
    content["self_ssim"] = {label: dict(zip(parts, found, strict=True)) for label, found in matrices.items()}
    evaluation_files.write_results(opts["output"], content, rows, rows, markdown)
    if matrices:
        flat = [{"method": label} | row for label, found in matrices.items() for row in _flat(found, shape)]
        write_whole(opts["output"] / "self_ssim.csv", report.to_csv(flat).encode())
    print(f"wrote {opts['output']}")


def _models(given: list[str]) -> dict:
    models = {}
    for name, label in evaluation_files.labels(given).items():
        if name in protocols.INTERPOLATIONS:
            raise UserError(f"--model={name} is an interpolation, which generates nothing; give a model.")
        models[label] = model = arbiscale_jax.load(name)
        if "baseline" in model.config or model.config["condition"]["enabled"] or "unet" not in model.params:
            raise UserError(f"--model={name} does not generate; give an unconditional model with its U-Net.")
    return models


def _write_curves(output: Path, shape, rows: list[dict], matrices: dict, extractor) -> None:
    """Draws the curves of Fig. 4: the Fréchet distance over sizes, and SelfSSIM at the first size."""
    axis = [max(size) for size in shape]
    if len(shape) < 2:
        return
    if rows and extractor.frechet in rows[0]:
        labels = dict.fromkeys(row["method"] for row in rows)
        lines = {x: [row[extractor.frechet] for row in rows if row["method"] == x] for x in labels}
        picture = pictures.curves(f"{extractor.frechet} over sizes", axis, lines)
        save(output / "curve_distance.png", picture)
    if matrices:
        lines = {label: list(mean[0]) for label, (mean, _, _) in matrices.items()}
        title = f"SelfSSIM of each size, resized to {generation.size_name(shape[0])}"
        save(output / "curve_self_ssim.png", pictures.curves(title, axis, lines, top=1.0))


def _matrix_row(size, shape, mean: np.ndarray, error: np.ndarray) -> dict:
    row = {"size": generation.size_name(size)}
    for other, value, se in zip(shape, mean, error, strict=True):
        row |= {generation.size_name(other): value, f"{generation.size_name(other)}_se": se}
    return row


def _flat(found, shape) -> list[dict]:
    """Returns a matrix as rows for a CSV file."""
    mean, error, n = found
    names = [generation.size_name(size) for size in shape]
    return [
        {"compared_at": a, "resized": b, "self_ssim": mean[i, j], "self_ssim_se": error[i, j], "images": n}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]


def _notes(opts: dict, num: int, extractor, with_self_ssim: bool) -> list[str]:
    """Returns sentences that say what the figures depend on."""
    if not extractor:
        return [f"{num} latents, seed {opts['seed']}."] if with_self_ssim else []
    notes = [
        f"{num} generated and {num} real images of {opts['data']} (split {opts['split']}), a fixed random choice where "
        "there are more; real images: the largest central window, resized to each size (Pillow's antialiased bicubic).",
        f"Features: {extractor.about}.",
    ]
    if opts["num"] and opts["num"] > num:
        notes.append(
            f"--num={opts['num']} was cut to {num}, the real images that can be read: both sides have as many."
        )
    if num <= extractor.dim:
        notes.append(
            f"{num} images for {extractor.dim} features: {extractor.frechet} is biased upwards; compare only figures "
            "of the same number of images."
        )
    if num > generation.distances.KID_SIZE and "kd" in opts["metrics"]:
        notes.append(f"{extractor.kernel}: mean ± standard deviation over 100 random subsets of 1000 images.")
    return notes
