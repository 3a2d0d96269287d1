"""Runs the task upscale of `arbiscale eval`."""

from functools import partial
from pathlib import Path

import arbiscale_jax
from arbiscale_jax.cli import evaluation_files, sampling, sizes
from arbiscale_jax.errors import UserError
from arbiscale_jax.evaluation import pictures, protocols, speed, statistics, super_resolution, weave
from arbiscale_jax.images import save
from arbiscale_jax.inference import Baseline
from arbiscale_jax.runtime.progress import counted_progress


def main(opts: dict) -> None:
    """Measures the methods on every image at every scale, and writes tables and contact sheets."""
    if not opts["data"]:
        raise UserError("Give --data, a folder of images or the name of a data source.")
    scales = _scales(opts["scales"])
    if "diversity" in opts["metrics"] and opts["samples"] < 2:
        raise UserError("The metric diversity compares samples of an input; give --samples=2 or more.")
    measured = [name for name in opts["metrics"] if name != "speed"]
    source = evaluation_files.open_source(opts)
    num = min(len(source), opts["max-images"] or len(source))
    measure = super_resolution.make_metrics(measured)
    of_each_image = [name for name in measured if name not in super_resolution.OF_ALL_IMAGES]
    methods = _methods(opts)

    rows_of, first, skipped = {}, {}, []
    spectra, true_spectra = weave.Spectra(), weave.Spectra()

    def images():
        for i in range(num):
            image = source.read(i)
            if image is not None and opts["max-side"]:
                image = protocols.center_crop(image, (opts["max-side"],) * 2)
            yield i, image

    def pairs_of(i, image) -> list[protocols.Pair]:
        if opts["lr"]:
            return [protocols.given_pair(*image)]
        return protocols.make_pairs(image, scales, opts["protocol"], opts["lr-size"], source.name(i))

    for i, image in images():  # checks all images before the models run for hours
        for scale, size in _truths(image, source.name(i), scales, opts):
            super_resolution.check_size(source.name(i), scale, size, opts["border"], measured)

    def cases():
        for i, image in images():
            if image is None:
                skipped.append(source.name(i))
                continue
            pairs = pairs_of(i, image)
            for pair in pairs:
                first.setdefault(pair.scale, pair)
            yield source.name(i), pairs

    def on_outputs(image, pair, outputs):
        rows = rows_of.setdefault(pair.scale, [])
        if len(rows) < opts["sheet"]:
            shown = {method: answers[0] for method, answers in outputs.items()}
            rows.append(pictures.sheet_row(Path(image).name, pair, shown))
        if "weave" in measured:
            true_spectra.add(pair.scale, pair.truth, pair.truth)
            for method, answers in outputs.items():
                for answer in answers:
                    spectra.add((method, pair.scale), answer, pair.truth)

    with counted_progress(num * (1 if opts["lr"] else len(scales)) * len(methods)) as advance:
        advance(0, "starting")
        records = super_resolution.evaluate(
            methods, cases(), measure, opts["border"], on_outputs, lambda text: advance(1, text)
        )
    if not records:
        raise UserError(f"--data={opts['data']} holds no image that can be read; give intact ones.")
    timings = _timings(methods, first, opts) if "speed" in opts["metrics"] else []

    for scale, rows in rows_of.items():
        if rows:
            save(opts["output"] / f"sheet_x{scale:g}.png", pictures.stack(rows))
    summary, weaves = statistics.summarize(records), spectra.weaves()
    if weaves:
        summary = [row | {"weave": weaves[row["method"], row["scale"]]} for row in summary]
    paired = statistics.paired_differences(records, methods[0].name)
    tables = {"Mean and standard error over images": summary if measured else []}
    tables[f"Difference to {methods[0].name} on the same images"] = paired if of_each_image else []
    tables["Speed: median seconds for the first image, without compilation; memory in MiB"] = timings
    notes = _notes(opts, len({record["image"] for record in records}), skipped)
    notes += [f"The true images have a weave of {value:.2f} at x{s:g}." for s, value in true_spectra.weaves().items()]
    notes += statistics.notes_on_exact(summary)
    markdown = evaluation_files.sections(f"Upscaling: {opts['data']}", tables, notes)
    models = {method.name: method.model for method in methods if method.model}
    content = evaluation_files.settings(opts, models) | {"notes": notes, "records": records, "summary": summary}
    content |= {"paired_differences": paired, "speed": timings}
    evaluation_files.write_results(opts["output"], content, records, summary, markdown)
    print(f"wrote {opts['output']}")


def _truths(image, name: str, scales: list[float], opts: dict) -> list[tuple[float, tuple[int, int]]]:
    """Returns the scale and the size of the truth of each test case that an image gives; None gives none."""
    if image is None:
        return []
    if opts["lr"]:
        pair = protocols.given_pair(*image)
        return [(pair.scale, (pair.truth.shape[0], pair.truth.shape[1]))]
    protocol = (opts["protocol"], opts["lr-size"])
    return [(scale, protocols.sizes_of(image.shape, scale, *protocol, name)[1]) for scale in scales]


def _scales(text: str) -> list[float]:
    scales = []
    for part in text.split(","):
        try:
            scales.append(float(part))
        except ValueError as e:
            raise UserError(f"--scales={text}: {part!r} is no number; give factors such as --scales=2,4,7.5.") from e
        sizes.check_scale(scales[-1])
        if scales[-1] < 1:
            raise UserError(f"--scales={text}: {scales[-1]:g} is below 1; upscaling is measured from 1 on.")
    if len(set(scales)) < len(scales):
        raise UserError(f"--scales={text} names a scale twice; give each once.")
    return scales


def _methods(opts: dict) -> list[super_resolution.Method]:
    """Makes a method of each model and of each name of an interpolation."""
    methods, options = [], dict(samples=opts["samples"], seed=opts["seed"], **sampling.given(opts))
    for name, label in evaluation_files.labels(opts["model"]).items():
        if name in protocols.INTERPOLATIONS:
            methods.append(super_resolution.interpolation(name))
            continue
        model = arbiscale_jax.load(name)
        if isinstance(model, Baseline):
            methods.append(super_resolution.from_baseline(label, model, **options))
            continue
        if not model.config["condition"]["enabled"] or "unet" not in model.params:
            raise UserError(f"--model={name} does not upscale; give a super-resolution model with its U-Net.")
        methods.append(super_resolution.from_model(label, model, **options))
    return methods


def _timings(methods, first: dict, opts: dict) -> list[dict]:
    """Times each method on the first image's input at each scale."""
    rows = []
    for method in methods:
        for scale, pair in first.items():
            size = pair.truth.shape[:2]
            if method.model:
                options = dict(seed=opts["seed"], **sampling.given(opts))
                found = speed.measure_model(method.model, pair.lr, [size], **options)[0]
            else:
                found = speed.measure_call(partial(method.render, pair.lr, size), size)
            rows.append({"method": method.name, "scale": scale, **found})
    return rows


def _notes(opts: dict, num: int, skipped: list[str]) -> list[str]:
    """Returns sentences that say what the figures depend on."""
    border = "ceil(s)" if opts["border"] is None else str(opts["border"])
    notes = [f"{num} images of {opts['data']} (split {opts['split']})."]
    if skipped:
        notes.append(f"{len(skipped)} images could not be read and were left out: {', '.join(skipped)}.")
    if opts["max-side"]:
        notes.append(f"Larger images were cut to their central {opts['max-side']} pixels per side.")
    if opts["lr"]:
        notes.append(
            f"The LR images are those of {opts['lr']}; the scale of a pair is that of its sides, and the truth is the "
            "image's top left round(s * LR side)."
        )
    elif opts["protocol"] == "fixed_hr":
        notes.append(
            "fixed_hr: LR sides are floor(side / s); the truth is the image's top left round(s * LR side), the LR "
            "image its reduction (Pillow's antialiased bicubic)."
        )
    else:
        side = opts["lr-size"]
        notes.append(
            f"fixed_lr: the central square of each image, reduced to {side} x {side} (LR) and to round({side} s) "
            "(truth) (Pillow's antialiased bicubic)."
        )
    notes.append(f"PSNR and SSIM leave out {border} pixels at each border; the other metrics see everything.")
    if opts["samples"] > 1:
        notes.append(f"A model's figures are means over {opts['samples']} samples per image.")
    return notes
