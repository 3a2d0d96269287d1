"""Fills in what a run's U-Net knows of the names of pictures (data.labels), before anything is built."""

from pathlib import Path

from arbiscale_jax import data, models
from arbiscale_jax.artifacts import storage
from arbiscale_jax.artifacts.model_fields import check_model
from arbiscale_jax.artifacts.vocabulary import Vocabulary, vocabulary_of
from arbiscale_jax.data.config_sources import train_source
from arbiscale_jax.errors import UserError

from .start import predecessor

_STAGES = ("diffusion", "align")  # those that train a U-Net of this kind


def with_labels(config, workdir: Path):
    """Returns the configuration with model.unet.labels filled in, if data.labels asks for labels.

    The labels are those of this run itself where it was started before; else those of the model from which the U-Net
    starts, if it has any; else they are made from the names of the training pictures.

    Args:
      config: a ConfigDict like that of experiments.get_base_config.
      workdir: the directory of the run.

    Returns:
      The same configuration if there is nothing to fill in, or else a locked copy.

    Raises:
      UserError: if the configuration has labels without data.labels, or a model or the training pictures cannot be
        read, or their names have neither styles nor words.
    """
    if "unet" not in config.model:
        return config
    known = vocabulary_of(models.complete(config.model))
    if not config.data.labels:
        if known:
            raise UserError("model.unet.labels lists labels, but data.labels is empty; set data.labels=names.")
        return config
    if config.stage not in _STAGES or known:
        return config
    if config.model.condition.enabled or config.model.unet.architecture != "adm":
        raise UserError(
            "data.labels serves generators: set model.condition.enabled=False and model.unet.architecture=adm, or "
            "unset data.labels."
        )
    source = _origin(config, workdir)
    known = _known_to(source) if source else None
    if known is None:
        known = data.make_vocabulary(train_source(config.data, most_bytes=0), config.data.label_words)
    filled = config.copy_and_resolve_references().unlock()
    with filled.ignore_type():
        filled.model.unet.labels.update({name: _plain(value) for name, value in known._asdict().items()})
    return filled.lock()


def _known_to(source: Path) -> Vocabulary | None:
    """Returns what the U-Net of the run or model at `source` knows of names, or None if it knows nothing."""
    found = check_model(storage.read_config(source), source / storage.CONFIG)
    return vocabulary_of(found) if "unet" in found else None


def _plain(value):
    return value if isinstance(value, int) else tuple(value)


def _origin(config, workdir: Path) -> Path | None:
    """Returns the folder of the model whose labels count, or None if they are to be made."""
    if storage.is_model(workdir):
        return workdir
    if config.init_from:
        return storage.locate(config.init_from)
    before = predecessor(config.stage, workdir) if config.stage == "align" else None
    return before if before and storage.is_model(before) else None
