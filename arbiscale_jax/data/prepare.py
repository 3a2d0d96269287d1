"""Prepared sets: folders of images resized once and written as ArrayRecord with TFDS metadata.

`python -m arbiscale_jax.data.prepare --input DIR --output DIR --size 256` (the same as `arbiscale prepare`) runs
`prepare`. The output directory is what TFDS writes: shards, features.json and, last of all, dataset_info.json.
"""

import hashlib
import json
import multiprocessing
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from arbiscale_jax.errors import UserError
from arbiscale_jax.whole_files import write_text

from . import folders
from .processes import end_with_parent
from .records import FEATURES, FORMAT, SHARD_NAME, SUMMARY, is_prepared, read_if_any, read_info, shard_name
from .shards import FITS, FORMATS, Job, Settings, marker, write_shard

PER_SHARD = 1000  # images, at most
MIN_SHARDS = 16  # where there are as many images, so that processes share the work of small sets
WORK = ".prepare"
VERSION = "1.0.0"


def prepare(
    root: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    size: int = 0,
    fit: str = "crop",
    split: str = "train",
    split_file: str | Path = "",
    image_format: str = "png",
    quality: int = 95,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Writes one split of a prepared set; called again after an interruption, it goes on where it was.

    Args: root, a folder of images or several joined, as in `sources.make_source`; output, the set's directory, which
      may hold other splits; size, fit, image_format and quality (of jpeg), as in `shards.cut_out`; split, the split's
      name; split_file, a text file of names, default all; processes, at least 1 (a script that uses several needs the
      `if __name__ == "__main__"` guard); progress, called with (images done, of how many).
    Returns: {"images", "records", "bytes", "shards": their numbers, "broken": [[name, why], ...]}; broken images are
      left out and listed in OUTPUT/broken_SPLIT.txt.
    Raises: UserError for arguments that make no sense, an output that holds something else, no readable image, or a
      full disk.
    """
    settings = Settings(size, fit, image_format, quality)
    _check(settings, split, processes)
    roots, output = folders.parse_roots(root), Path(output).expanduser()
    names = folders.find_images(roots)
    if split_file:
        names = folders.read_split(split_file, names)
    plan = {**settings._asdict(), "images": len(names), "names": hashlib.sha256("\n".join(names).encode()).hexdigest()}
    if done := _finished(output, split, plan):
        return done
    try:
        work = _start(output, split, plan)
    except OSError as e:
        raise UserError(f"--output={output} cannot be written ({e.strerror}); choose another.") from e
    num_shards = min(len(names), max(MIN_SHARDS, -(-len(names) // PER_SHARD)))
    bounds = [k * len(names) // num_shards for k in range(num_shards + 1)]
    jobs = [
        Job(roots, tuple(names[a:b]), settings, work / f"{k:05d}") for k, (a, b) in enumerate(zip(bounds, bounds[1:]))
    ]
    images = 0
    for job in _run(jobs, processes):
        images += len(job.names)
        if progress:
            progress(images, len(names))
    return _finish(output, split, plan, [job.path for job in jobs])


def _check(settings: Settings, split: str, processes: int) -> None:
    if settings.fit not in FITS:
        raise UserError(f"--fit is one of {', '.join(FITS)}, got {settings.fit!r}.")
    if settings.image_format not in FORMATS:
        raise UserError(f"--format is one of {', '.join(FORMATS)}, got {settings.image_format!r}.")
    if (settings.size < 1) != (settings.fit == "keep"):
        raise UserError(
            f"--size={settings.size} does not go with --fit={settings.fit}; give a size, or keep without it."
        )
    if not 1 <= settings.quality <= 100:
        raise UserError(f"--quality lies in [1, 100], got {settings.quality}.")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", split):
        raise UserError(f"--split is a name of lower-case letters, as train or validation, got {split!r}.")
    if processes < 1:
        raise UserError(f"--processes must be at least 1, got {processes}.")


def _finished(output: Path, split: str, plan: dict) -> dict | None:
    """Returns the summary of a split that is complete. Raises: UserError if it was made otherwise."""
    if not is_prepared(output):
        return None
    if split not in [one["name"] for one in read_info(output)["splits"]]:
        return None
    summary = read_if_any(output / SUMMARY).get(split, {})
    if summary.get("plan") != plan:
        raise UserError(
            f"{output} already holds a split {split} of other images or settings; choose another --output or --split."
        )
    shutil.rmtree(output / WORK / split, ignore_errors=True)
    if (output / WORK).is_dir() and not any((output / WORK).iterdir()):
        (output / WORK).rmdir()
    return {key: value for key, value in summary.items() if key != "plan"}


def _start(output: Path, split: str, plan: dict) -> Path:
    """Returns the directory of unfinished shards, new or as an interrupted run left it."""
    if output.is_dir() and any(output.iterdir()) and not (is_prepared(output) or (output / WORK).is_dir()):
        raise UserError(f"--output={output} holds something other than a prepared set; choose a new folder.")
    for other in read_if_any(output / SUMMARY).values():
        if other["plan"]["image_format"] != plan["image_format"]:
            raise UserError(f"{output} has splits in {other['plan']['image_format']}; give the same --format.")
    work = output / WORK / split
    work.mkdir(parents=True, exist_ok=True)
    if (before := read_if_any(work / "plan.json")) and before != plan:
        field = next(key for key in plan if before.get(key) != plan[key])
        raise UserError(
            f"{output} holds an unfinished split {split} with another {field}; finish it as it was begun, or delete "
            f"{work}."
        )
    write_text(work / "plan.json", json.dumps(plan))
    return work


def _run(jobs: list[Job], processes: int) -> Iterator[Job]:
    """Writes the shards and yields each job when it is done."""
    if processes == 1:
        for job in jobs:
            write_shard(job)
            yield job
        return
    context = multiprocessing.get_context("spawn")  # JAX or grain may have started threads, which fork does not bear
    workers = min(processes, len(jobs))
    with ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
        futures = {pool.submit(write_shard, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool as e:
            raise UserError(
                "A process of --processes was killed, perhaps out of memory; start again with fewer."
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


def _finish(output: Path, split: str, plan: dict, paths: list[Path]) -> dict:
    """Names the shards finally and writes the metadata, dataset_info.json last; may be repeated."""
    shards = [(path, read_if_any(marker(path))) for path in paths]
    broken = [pair for _, done in shards for pair in done["broken"]]
    shards = [(path, done) for path, done in shards if done["records"]]
    if not shards:
        raise UserError(f"None of the {plan['images']} images can be read, the first: {broken[0][1]}")
    name = re.sub(r"\W+", "_", output.resolve().name).lower()
    info = read_info(output) if is_prepared(output) else {"name": name, "splits": []}
    for number, (path, _) in enumerate(shards):
        final = output / shard_name(SHARD_NAME, info["name"], split, number, len(shards))
        if path.exists():
            path.replace(final)
        elif not final.exists():  # an interruption came after the renaming, or somebody took the shard away
            raise UserError(f"The shard {path} has vanished; delete {path.parent} and start again.")
    lengths, num_bytes = ([done[key] for _, done in shards] for key in ("records", "bytes"))
    summary = dict(
        images=plan["images"], records=sum(lengths), bytes=sum(num_bytes), shards=len(shards), broken=broken, plan=plan
    )
    write_text(output / f"broken_{split}.txt", "".join(f"{name}\t{' '.join(why.split())}\n" for name, why in broken))
    write_text(output / SUMMARY, json.dumps(read_if_any(output / SUMMARY) | {split: summary}, indent=1))
    write_text(output / FEATURES, json.dumps(_features(plan["image_format"]), indent=1))
    entry = {
        "name": split,
        "filepathTemplate": SHARD_NAME,
        "shardLengths": [str(length) for length in lengths],
        "numBytes": str(sum(num_bytes)),
    }
    about = "Images prepared by arbiscale_jax; prepare.json says how."
    fixed = {"name": info["name"], "version": VERSION, "description": about, "fileFormat": FORMAT}
    write_text(output / folders.METADATA, json.dumps({**fixed, "splits": [*info["splits"], entry]}, indent=1))
    return _finished(output, split, plan)


def _features(image_format: str) -> dict:
    """Describes the records as TFDS does: an image of any size, and its name."""
    package = "tensorflow_datasets.core.features"
    image = {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": image_format}
    features = {
        "image": {"pythonClassName": f"{package}.image_feature.Image", "image": image},
        "name": {"pythonClassName": f"{package}.text_feature.Text", "text": {}},
    }
    return {"pythonClassName": f"{package}.features_dict.FeaturesDict", "featuresDict": {"features": features}}


if __name__ == "__main__":
    from arbiscale_jax.cli import prepare as command
    from arbiscale_jax.cli import program

    sys.exit(program.run(partial(command.main, prog="python -m arbiscale_jax.data.prepare")))
