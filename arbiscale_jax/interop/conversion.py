"""Converts a checkpoint into an exported model on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from arbiscale_jax.artifacts import registry
from arbiscale_jax.artifacts.storage import missing_parts
from arbiscale_jax.experiments.arch_files import read_arch
from arbiscale_jax.inference import Baseline, Model

from .baseline_checkpoint import is_baseline, read_baseline
from .torch_checkpoint import read_checkpoint


def checkpoint_to_folder(
    path: str | Path,
    arch: Mapping | str | Path,
    folder: str | Path | None,
    *,
    ema: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Model | Baseline:
    """Reads a checkpoint as `load_torch` does and writes it as an exported model, in float32 with exactly equal values.

    A file that lacks a part of the auto-encoder is written too; training can start from it, but aj.load refuses it.

    Args:
      path: the checkpoint file.
      arch: its architecture, as for `load_torch`, or liif, sr3, idm or esrgan.
      folder: the folder to write, which is made if it is missing, or None to write nothing.
      ema: whether to read the averaged weights of the U-Net instead of the raw ones.
      overwrite: whether to replace an exported model that the folder already holds.
      say: takes messages about what was read and what it can be used for.

    Returns:
      The Model, or the Baseline for a method with which the paper compares.

    Raises:
      UserError: as `load_torch` does, or if the folder holds something else, or a model and `overwrite` is False.
    """
    path = Path(path)
    if folder is not None:
        registry.check_export_folder(Path(folder), overwrite)
    if is_baseline(arch):
        return _convert_baseline(path, str(arch), folder, ema, say)
    found = read_checkpoint(path, arch, ema)
    for line in found.report:
        say(line)
    use = _use(found.params)
    if folder is not None:
        about = {
            "model": found.model,
            "source": {"file": path.name, "averaged": ema, "arch": dict(read_arch(arch)), "read": found.report},
        }
        weights = {**found.params, "scale_factor": np.float32(found.scale_factor)}
        registry.write_export(Path(folder), about, weights, _card(path, found, use), np.float32)
        say(f"wrote {folder}: {use}")
    return Model(found.model, found.params, found.scale_factor)


def _convert_baseline(path: Path, method: str, folder: str | Path | None, ema: bool, say: Callable) -> Baseline:
    model, params = read_baseline(path, method, ema)
    if folder is not None:
        about = {"model": model, "source": {"file": path.name, "averaged": ema, "method": method}}
        card = f"""# {path.name}

Converted by arbiscale_jax from the checkpoint `{path.name}` of the method {method}, a whole model.

{registry.parameter_table(params)}

Licence of the weights: that of the checkpoint.
"""
        registry.write_export(Path(folder), about, params, card, np.float32)
        say(f"wrote {folder}: a whole model")
    return Baseline(model, params, name=path.stem)


def _use(params: dict) -> str:
    missing = missing_parts(params)
    if not missing:
        return "a whole model" if "unet" in params else "an auto-encoder, without a U-Net"
    parts = ["a U-Net for --config.init_from"] if "unet" in params else []
    if "encoder" in params.get("first_stage", {}):
        parts.append("an encoder for --config.first_stage with loss.freeze_encoder")
    return f"a start for training ({' and '.join(parts)}); it lacks {', '.join(missing)}"


def _card(path: Path, found, use: str) -> str:
    read = "\n".join(f"- {line}" for line in found.report)
    return f"""# {path.name}

Converted by arbiscale_jax from the PyTorch checkpoint `{path.name}`: {use}.

{registry.parameter_table(found.params)}

What was read:

{read}

config.json has the architecture under `source`. Licence of the weights: that of the checkpoint.
"""
