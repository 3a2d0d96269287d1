"""Runs the task generate of `arbiscale eval`."""

from pathlib import Path

import numpy as np

import arbiscale_jax
from arbiscale_jax.cli import evaluate_nearest, evaluation_files, sampling, sizes
from arbiscale_jax.errors import UserError
from arbiscale_jax.evaluation import features, generation, pictures, protocols, report, speed
from arbiscale_jax.evaluation.distortion import SSIM_WINDOW
from arbiscale_jax.images import save
from arbiscale_jax.images.saving import write_whole
from arbiscale_jax.runtime.mesh import make_mesh
from arbiscale_jax.runtime.progress import counted_progress

GRID_IMAGES = 6  # number of rows in the grid over sizes
_OF_REAL = {"fd", "kd", "precision", "recall", "patch_fd"}  # metrics that need real images
_AT_SIZE = "SIZE=FOLDER, such as --truth=256=renders_256,512=renders_512"


def main(opts: dict) -> None:
    """Generates images with every model, measures them at every size, and writes tables, grids and curves."""
    metrics = opts["metrics"]
    needs_real = bool(_OF_REAL & set(metrics))
    if needs_real and not opts["data"]:
        raise UserError("Give --data, the real images to compare with; without it, --metrics=selfssim,speed.")
    if "nearest" in metrics and not opts["train"]:
        raise UserError("The metric nearest needs --train, the pictures that the model was trained on.")
    models = _models(opts["model"])
    shape = _sizes(opts, next(iter(models.values())))
    sources = _sources(opts, shape) if opts["data"] and needs_real else {}
    with_self_ssim = "selfssim" in metrics and len(shape) > 1
    mesh = make_mesh()
    batch_size = -(-opts["batch-size"] // mesh.size) * mesh.size
    extractor, real, training, num = None, {}, None, opts["num"] or generation.SELF_SSIM_IMAGES
    patch = opts["patch"] if "patch_fd" in metrics else 0

    def job(advance) -> generation.Job:
        return generation.Job(shape, extractor, batch_size, opts["output"] / "features", advance, patch)

    if sources or "nearest" in metrics:
        extractor = features.make_extractor(opts["features"], mesh, opts["inception-weights"])
    if sources:
        fewest = min(len(source) for source, _ in sources.values())
        asked = min(opts["num"] or fewest, fewest)
        for source, sizes_of_it in sources.values():
            with counted_progress(asked) as advance:
                advance(0, "real images")
                own = job(advance)._replace(sizes=sizes_of_it)
                found = generation.real_features(source, generation.source_stamp(source), asked, own)
            real |= {size: found for size in sizes_of_it}
        num = min(asked, *(generation.count_rows(real[size], generation.size_name(size)) for size in shape))
        if num < 2:
            raise UserError(f"--data={opts['data']} holds {num} images that can be read; distances need two at least.")
    if "nearest" in metrics:
        training = evaluate_nearest.read_training(opts, job(lambda n: None))
    options = dict(seed=opts["seed"], **sampling.given(opts))

    rows, matrices, timings, found, nearer = [], {}, [], [], []
    for label, model in models.items():
        spread = generation.spread(model, mesh)
        if real or training or with_self_ssim:
            with counted_progress(num) as advance:
                advance(0, f"{label}: generating")
                wanted = dict(with_self_ssim=with_self_ssim, **options)
                found = generation.generated_features(spread, num, job(advance), mesh, **wanted)
        if real and extractor is not None:
            measured = generation.measure(real, found, num, shape, extractor, metrics)
            rows += [{"method": label, **row} for row in measured]
        if training is not None:
            fake = np.concatenate(list(generation.read_shards(found, generation.size_name(shape[0]), num)))
            path = opts["output"] / f"nearest_{_file_label(label)}.csv"
            nearer += [{"method": label, **_nearest(path, training, spread, fake, shape[0], options)}]
        if with_self_ssim:
            matrices[label] = generation.self_ssim_matrix(found, num)
        if "speed" in metrics:
            timings += [{"method": label, **row} for row in speed.measure_model(model, None, shape, **options)]
        renders = generation.generated_batch(spread, 0, batch_size, shape, mesh, **options)
        grid = pictures.size_grid([images[:GRID_IMAGES] for images in renders], label)
        save(opts["output"] / f"grid_{_file_label(label)}.png", grid)
    _write_curves(opts["output"], shape, rows, matrices, extractor)
    notes = _notes(opts, num, extractor if real else None, with_self_ssim) + _notes_on_sizes(sources, training)
    _write_tables(opts, models, shape, (rows, nearer), matrices, timings, notes)


def _file_label(label: str) -> str:
    return label.strip("/").replace("/", "_")


def _nearest(path: Path, training, model, fake: np.ndarray, size: generation.Size, options: dict) -> dict:
    """Compares features of generated images with those of training pictures, and returns a row for the tables.

    It writes a list of all images to `path`, and beside it a picture of the nearest ones at `size`.
    """
    found, row = evaluate_nearest.compare(training, fake)
    shown = found[: evaluate_nearest.SHOWN]
    mesh = make_mesh()
    numbers = [one.number for one in shown] + [shown[0].number] * (-len(shown) % mesh.size)
    (renders,) = generation.render_numbers(model, numbers, [size], mesh, **options)
    evaluate_nearest.write_list(path, training, found)
    evaluate_nearest.draw(path.with_suffix(".png"), training, shown, renders[: len(shown)])
    return row


def _sources(opts: dict, shape: list[generation.Size]) -> dict[str, tuple]:
    """Opens the real images: those of --data, and for the sizes that --truth names true renders of that size.

    Returns:
      {folder: (its images, the sizes for which they are the real ones)}.

    Raises:
      UserError: if --truth has another form or names a size that is not measured, or images are missing.
    """
    folders = {size: opts["data"] for size in shape}
    for part in filter(None, (one.strip() for one in (opts["truth"] or "").split(","))):
        text, parted, folder = part.partition("=")
        if not parted or not folder:
            raise UserError(f"--truth={opts['truth']} is to name {_AT_SIZE}.")
        (size,) = sizes.parse_sizes(text, "--truth")
        if size not in folders:
            raise UserError(
                f"--truth names the size {text}, which is not measured; the sizes are "
                f"{', '.join(map(generation.size_name, shape))} (--sizes)."
            )
        folders[size] = folder
    return {
        folder: (evaluation_files.open_source({**opts, "data": folder}), [s for s in shape if folders[s] == folder])
        for folder in dict.fromkeys(folders.values())
    }


def _sizes(opts: dict, model) -> list[generation.Size]:
    """Returns the sizes to measure, and raises UserError for sizes that cannot be measured."""
    default = sampling.given(opts).get("canvas") or (model.config["sampling"]["size"],) * 2
    shape = sizes.parse_sizes(opts["sizes"], "--sizes") if opts["sizes"] else [default]
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


def _write_tables(opts: dict, models: dict, shape, measured, matrices: dict, timings, notes: list[str]) -> None:
    rows, nearer = measured
    tables = {"Against real images": rows, "Nearest training pictures: ratios of distances": nearer}
    for label, (mean, error, n) in matrices.items():
        tables[f"SelfSSIM of {label} over {n} latents: row i, column j: the render at size j resized to size i"] = [
            _matrix_row(size, shape, *line) for size, *line in zip(shape, mean, error, strict=True)
        ]
    tables["Speed: median seconds for one image, without compilation; memory in MiB"] = timings
    markdown = evaluation_files.sections(f"Generation: {', '.join(models)}", tables, notes)
    content = evaluation_files.settings(opts, models) | {"notes": notes, "distances": rows, "speed": timings}
    parts = ("mean", "se", "images")
    content |= {"nearest": nearer} if nearer else {}
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


def _notes_on_sizes(sources: dict[str, tuple], training) -> list[str]:
    """Returns sentences on real images that had to be enlarged, and on how neighbours are compared."""
    notes = []
    for folder, (source, shape) in sources.items():
        side = min(source[0].shape[:2])
        if large := [generation.size_name(size) for size in shape if min(size) > side]:
            notes.append(
                f"Real images of {folder} have about {side} pixels per side and were enlarged for {', '.join(large)}; "
                "--truth SIZE=FOLDER names true ones."
            )
    if len(sources) > 1:
        by_folder = (f"{folder} for {', '.join(map(generation.size_name, s))}" for folder, (_, s) in sources.items())
        notes.append(f"Real images: {'; '.join(by_folder)}.")
    if training is not None:
        notes.append(
            "Ratio: the distance of an image to its nearest training picture over that picture's distance to its own "
            "nearest neighbour, in another style where names have styles; images below 1 are nearer."
        )
    return notes


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
