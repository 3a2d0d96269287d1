"""Makes prepared sets: folders of images are resized once and written as ArrayRecord files with TFDS metadata.

`python -m arbiscale_jax.data.prepare --input DIR --output DIR --size 256` (the same as `arbiscale prepare`) runs
`prepare`. The output directory looks like one that TFDS writes: shards, features.json and dataset_info.json, which is
written last.
"""

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import pairwise
from pathlib import Path

from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.whole_files import write_text

from . import folders, metadata
from .metadata import Entry
from .processes import end_with_parent
from .records import SUMMARY
from .set_info import FEATURES, FORMAT, REMEDY, SHARD_NAME, SetInfo, Split, is_prepared, read_info, shard_name
from .shards import FITS, FORMATS, Job, Storage, broken_images, read_done, write_shard

PER_SHARD = 1000  # largest number of images in a shard
MIN_SHARDS = 16  # least number of shards, at most one per image, so that processes can share the work
WORK = ".prepare"
VERSION = "1.0.0"


def prepare(
    root: str | Path | Sequence[str | Path],
    output: str | Path,
    storage: Storage,
    *,
    split: str = "train",
    split_file: str | Path = "",
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Writes one split of a prepared set; a repeated call continues after an interruption.

    Args:
      root: a folder of images or several joined, as in `sources.make_source`.
      output: the directory of the prepared set, which may hold other splits.
      storage: how the images are cut, resized and stored.
      split: name of the split, in lower-case letters.
      split_file: text file that lists the images of the split; "" takes all.
      processes: number of processes that write, at least 1. A script that uses several needs the
        `if __name__ == "__main__"` guard.
      progress: called with (number of images done, number of all images) after each shard.

    Returns:
      {"images", "records", "bytes", "shards": how many there are of each, "broken": [[name, reason], ...]}. Images
      that are broken or too small are left out and listed in OUTPUT/broken_SPLIT.txt.

    Raises:
      UserError: if an argument makes no sense, the output holds something else, no image can be read, or the disk is
        full.
    """
    _check(storage, split, processes)
    roots, output = folders.parse_roots(root), Path(output).expanduser()
    names = folders.find_images(roots)
    if split_file:
        names = folders.read_split(split_file, names, roots)
    plan = {
        **storage._asdict(),
        "images": len(names),
        "names": hashlib.sha256(os.fsencode("\n".join(names))).hexdigest(),
    }
    if done := _finished(output, split, plan):
        return done
    try:
        work = _start(output, split, plan)
    except OSError as e:
        raise UserError(f"--output={output} cannot be written ({e.strerror}); choose another.") from e
    num_shards = min(len(names), max(MIN_SHARDS, -(-len(names) // PER_SHARD)))
    bounds = [k * len(names) // num_shards for k in range(num_shards + 1)]
    jobs = [Job(roots, tuple(names[a:b]), storage, work / f"{k:05d}") for k, (a, b) in enumerate(pairwise(bounds))]
    images = 0
    for job in _run(jobs, processes):
        images += len(job.names)
        if progress:
            progress(images, len(names))
    return _finish(output, split, plan, [job.path for job in jobs])


def _check(storage: Storage, split: str, processes: int) -> None:
    """Checks the arguments of `prepare` and raises UserError for the first one that makes no sense."""
    if storage.fit not in FITS:
        raise UserError(f"--fit is one of {', '.join(FITS)}, got {storage.fit!r}.")
    if storage.image_format not in FORMATS:
        raise UserError(f"--format is one of {', '.join(FORMATS)}, got {storage.image_format!r}.")
    if (storage.size < 1) != (storage.fit == "keep"):
        raise UserError(f"--size={storage.size} does not go with --fit={storage.fit}; give a size, or keep without it.")
    if not 1 <= storage.quality <= 100:
        raise UserError(f"--quality lies in [1, 100], got {storage.quality}.")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", split):
        raise UserError(f"--split is a name of lower-case letters, such as train or validation, got {split!r}.")
    if processes < 1:
        raise UserError(f"--processes must be at least 1, got {processes}.")


def _finished(output: Path, split: str, plan: dict) -> dict | None:
    """Returns the summary of a complete split, or raises UserError if the split was made differently."""
    if not is_prepared(output):
        return None
    if split not in read_info(output).splits:
        return None
    summary = _summaries(output).get(split, {})
    if summary.get("plan") != plan:
        raise UserError(
            f"{output} already holds a split {split} of other images or settings; choose another --output or --split."
        )
    shutil.rmtree(output / WORK / split, ignore_errors=True)
    if (output / WORK).is_dir() and not any((output / WORK).iterdir()):
        (output / WORK).rmdir()
    return {key: value for key, value in summary.items() if key != "plan"}


def _start(output: Path, split: str, plan: dict) -> Path:
    """Returns the directory for unfinished shards, which is new or left by an interrupted run."""
    if output.is_dir() and any(output.iterdir()) and not (is_prepared(output) or (output / WORK).is_dir()):
        raise UserError(f"--output={output} holds something other than a prepared set; choose a new folder.")
    for other in _summaries(output).values():
        if other["plan"]["image_format"] != plan["image_format"]:
            raise UserError(f"{output} has splits in {other['plan']['image_format']}; give the same --format.")
    work = output / WORK / split
    work.mkdir(parents=True, exist_ok=True)
    before = _read_plan(metadata.read_if_any(work / "plan.json", f"delete {work}"))
    if before and before != plan:
        field = next(key for key in (*plan, *before) if before.get(key) != plan.get(key))
        raise UserError(
            f"{output} holds an unfinished split {split} with another {field}; finish it as it was begun, or delete "
            f"{work}."
        )
    write_text(work / "plan.json", json.dumps(plan))
    return work


def _run(jobs: list[Job], processes: int) -> Iterator[Job]:
    """Writes the shards and yields each job when its shard is written."""
    if processes == 1:
        for job in jobs:
            write_shard(job)
            yield job
        return
    context = multiprocessing.get_context("spawn")  # JAX or grain may have started threads, which break fork
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
    """Gives the shards their final names, then writes the metadata, dataset_info.json last; it may be repeated."""
    shards = []
    for path in paths:
        if (done := read_done(path)) is None:
            raise UserError(f"The shard {path} was changed by something else; delete {path.parent} and start again.")
        shards.append((path, done))
    broken = [pair for _, done in shards for pair in done["broken"]]
    shards = [(path, done) for path, done in shards if done["records"]]
    if not shards:
        raise UserError(f"None of the {plan['images']} images can be read, the first: {broken[0][1]}")
    # the file names begin with the name of the set, so it is kept short
    name = re.sub(r"\W+", "_", output.resolve().name).lower().encode()[:150].decode(errors="ignore")
    info = read_info(output) if is_prepared(output) else SetInfo(name, FORMAT, {})
    for number, (path, _) in enumerate(shards):
        final = output / shard_name(SHARD_NAME, info.name, split, number, len(shards))
        if path.exists():
            path.replace(final)
        elif not final.exists():  # an interrupted run may have renamed it already
            raise UserError(f"The shard {path} has vanished; delete {path.parent} and start again.")
    lengths, num_bytes = ([done[key] for _, done in shards] for key in ("records", "bytes"))
    summary = dict(
        images=plan["images"], records=sum(lengths), bytes=sum(num_bytes), shards=len(shards), broken=broken, plan=plan
    )
    lines = "".join(f"{name}\t{' '.join(why.split())}\n" for name, why in broken)
    write_text(output / f"broken_{split}.txt", os.fsencode(lines).decode(errors="backslashreplace"))
    write_text(output / SUMMARY, json.dumps(_summaries(output) | {split: summary}, indent=1))
    write_text(output / FEATURES, json.dumps(_features(plan["image_format"]), indent=1))
    splits = [*info.splits.values(), Split(split, SHARD_NAME, tuple(lengths), sum(num_bytes))]
    about = "Images prepared by arbiscale_jax; prepare.json says how."
    fixed = {"name": info.name, "version": VERSION, "description": about, "fileFormat": FORMAT}
    described = {**fixed, "splits": [_describe(one) for one in splits]}
    write_text(output / folders.METADATA, json.dumps(described, indent=1))
    done = _finished(output, split, plan)
    assert done is not None, "the split was written above"
    return done


def _describe(split: Split) -> dict:
    """Describes a split as TFDS does: large integers are written as texts."""
    lengths = [str(length) for length in split.shard_lengths]
    return {
        "name": split.name,
        "filepathTemplate": split.template,
        "shardLengths": lengths,
        "numBytes": str(split.num_bytes),
    }


def _summaries(output: Path) -> dict[str, dict]:
    """Returns the summary and plan of each finished split, or raises UserError if prepare.json is damaged."""
    summaries = {}
    for split, entry in metadata.read_if_any(output / SUMMARY, REMEDY).members().items():
        summary = {field: entry.member(field).count() for field in ("images", "records", "bytes", "shards")}
        plan = entry.member("plan")
        plan.member("image_format").text()  # a check: other splits are compared with it
        summaries[split] = summary | {"broken": broken_images(entry), "plan": _read_plan(plan)}
    return summaries


def _read_plan(entry: Entry) -> dict:
    """Returns the plan of a split, whose values are texts and numbers."""
    return {name: one.scalar() for name, one in entry.members().items()}


def _features(image_format: str) -> dict:
    """Describes the records as TFDS does: each has an image of any size and a name."""
    package = "tensorflow_datasets.core.features"
    image = {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": image_format}
    features = {
        "image": {"pythonClassName": f"{package}.image_feature.Image", "image": image},
        "name": {"pythonClassName": f"{package}.text_feature.Text", "text": {}},
    }
    return {"pythonClassName": f"{package}.features_dict.FeaturesDict", "featuresDict": {"features": features}}


if __name__ == "__main__":
    from arbiscale_jax.cli import prepare_data as command
    from arbiscale_jax.cli import program

    sys.exit(program.run(partial(command.main, prog="python -m arbiscale_jax.data.prepare")))
