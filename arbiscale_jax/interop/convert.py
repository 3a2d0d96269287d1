"""A checkpoint as an exported model on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from arbiscale_jax import registry
from arbiscale_jax.inference import Model
from arbiscale_jax.storage import missing_parts

from .arch import read_arch
from .torch_checkpoint import read_checkpoint


def checkpoint_to_folder(
    path: str | Path,
    arch: Mapping | str | Path,
    folder: str | Path | None,
    *,
    ema: bool = False,
    say: Callable[[str], None] = print,
) -> Model:
    """Reads a checkpoint as `load_torch` does and writes it as an exported model, float32, bit for bit.

    A file without all parts of the auto-encoder is written too: it is a start for training, which aj.load refuses.
    Args: folder, made if missing, None to write nothing; say, told what was read and what it is good for.
    Returns: the Model.
    Raises: UserError as `load_torch`, or if `folder` holds something else than an exported model.
    """
    path = Path(path)
    if folder is not None:
        registry.check_export_folder(Path(folder))
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
