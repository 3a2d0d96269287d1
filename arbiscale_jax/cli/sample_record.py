"""Records how the results of `upscale` and `generate` were made, and says at the end what was done."""

import time
from collections.abc import Sequence
from importlib.metadata import version

import arbiscale_jax
from arbiscale_jax.cli import destination, sampling
from arbiscale_jax.cli.destination import Destination, Result
from arbiscale_jax.cli.journal import Journal
from arbiscale_jax.cli.model_settings import Settings
from arbiscale_jax.runtime.screen import printable


def write(
    opts: dict, settings: Settings, where: Destination, journal: Journal, resolved: dict, results: Sequence[Result]
) -> None:
    """Writes the file that lists all results with the same options, also those of earlier commands, and the options.

    Args:
      opts: the values of all flags.
      settings: the model's, which count for flags that were not given.
      where: where the results are.
      journal: what is finished.
      resolved: what else is recorded; `task` is among it.
      results: those of this command, in the order in which they are listed.
    """
    done = {name: e for name, e in journal.entries.items() if e.options == journal.key and e.written >= 0}
    order = dict.fromkeys([*(one.name for one in results), *sorted(done)])
    done = {name: done[name] for name in order if name in done and (where.folder / name).exists()}
    given = {one.entry.source: str(one.input) for one in results if one.input}
    sources = {e.source: e.size for e in done.values() if e.source}
    record = dict(resolved)
    if record["task"] == "upscale":
        record |= dict(inputs=[given.get(one, one[0]) for one in sources], output_sizes=list(sources.values()))
    used = {name: value for name, value in settings.sampling.items() if name in sampling.RECORDED}
    record |= dict(model=opts["model"], seed=opts["seed"], **used, outputs=list(done))
    versions = {"arbiscale_jax": arbiscale_jax.__version__, "jax": version("jax")}
    destination.write_settings(where, record | dict(versions=versions, model_config=settings.config))


def summarize(where: Destination, journal: Journal, results: Sequence[Result], left_out: int, began: float) -> None:
    """Prints the names of the results that this command wrote, and a last line with numbers.

    Args:
      where: where the results are.
      journal: what is finished.
      results: all results that the command was to make or to keep.
      left_out: how many inputs were left out.
      began: when the command began, by the monotonic clock.
    """
    made = [one for one in results if one.name in journal.fresh]
    for one in made:
        print(f"wrote {printable(where.folder / one.name)}")
    kept = sum((where.folder / one.name).exists() for one in results) - len(made)
    pixels = sum(one.entry.size[0] * one.entry.size[1] for one in made)
    print(
        f"{len(made)} written, {kept} there already, {left_out} left out; {time.monotonic() - began:.1f} s, "
        f"{pixels / 1e6:.2f} megapixels"
    )
