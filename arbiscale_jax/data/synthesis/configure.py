"""Reads config.data: it makes the variants, the settings and the store. No other module here reads a configuration."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from arbiscale_jax.artifacts.vocabulary import Vocabulary
from arbiscale_jax.errors import UserError

from ..config_sources import train_source
from ..folders import parse_roots
from ..name_labels import labels_of
from ..source import Source
from ..sources import make_source
from .drawings import drawing, sheets
from .examples import CYCLE, Settings, Variant, sizes
from .pairs import read_pairs
from .store import TileStore, make_store

_WAYS = ("clean", "light", "heavy")
_SEED = 0  # seed of the drawings, which belong to the data and do not change with the seed of a run
_BLOCK = 16  # the side of a region is a multiple of this, where the tile has room


def from_config(config: Mapping[str, Any]) -> tuple[tuple[Variant, ...], Settings]:
    """Returns the variants and the settings of config.data.synthesis.

    Args:
      config: config.data of an experiment.

    Raises:
      UserError: for the first field that makes no sense.
    """
    own, tile = config["synthesis"], config["synthesis"]["tile"]
    if tile < 16:
        raise UserError(f"data.synthesis.tile is a side of at least 16 pixels, got {tile}.")
    if not own["variants"]:
        raise UserError("data.synthesis.variants must name at least one (n, p, scale_min, scale_max, share), got none.")
    for values in own["variants"]:
        _check_variant(tuple(values), tile)
    total = sum(values[4] for values in own["variants"])
    for *_, share in own["variants"]:
        if share * CYCLE < total:
            raise UserError(
                f"Each share of data.synthesis.variants is at least a {CYCLE}th of all, got {share} of {total}; raise "
                "it or take the variant out."
            )
    for name in _WAYS:
        if own[name] < 0:
            raise UserError(f"data.synthesis.{name} is a share, 0 or more, got {own[name]}.")
    if not sum(own[name] for name in _WAYS) > 0:
        raise UserError("One of data.synthesis.clean, light and heavy must be above 0, got 0 for all.")
    variants = tuple(_variant(values, tile) for values in own["variants"])
    if own["whole"]:
        variants = tuple(variant._replace(region=tile) for variant in variants)
    pairs = own["pairs_share"] if own["pairs_root"] else 0.0
    if not 0 <= pairs < 1:
        raise UserError(f"data.synthesis.pairs_share is a share, at least 0 and below 1, got {pairs}.")
    if config["lr_root"]:
        raise UserError("data.lr_root gives LR images to examples of the host; here set data.synthesis.pairs_root.")
    if pairs and own["whole"]:
        raise UserError("data.synthesis.pairs_root gives windows of pictures; data.synthesis.whole cannot be set.")
    return variants, Settings(**{name: own[name] for name in _WAYS}, whole=own["whole"], pairs=pairs)


def _check_variant(values: tuple, tile: int) -> None:
    """Checks the five numbers of a variant and raises UserError if it cannot be made."""
    name = f"data.synthesis.variants: {values}"
    if len(values) != 5:
        raise UserError(f"{name} must have five numbers: n, p, scale_min, scale_max, share.")
    n, p, low, high, share = values
    if not (n == int(n) >= 1 and p == int(p) >= 1 and 1 <= low <= high and share > 0):
        raise UserError(
            f"{name} must have whole n and p of at least 1, 1 <= scale_min <= scale_max and a share above 0."
        )
    smallest, largest = sizes(_variant(values, tile))
    if p > smallest:
        raise UserError(f"{name} has a window of {p} pixels in an output of {smallest}; p <= n * scale_min must hold.")
    if max(largest, n * high) > tile:
        raise UserError(f"{name} reads {largest} pixels of a tile of {tile}; n * scale_max <= tile must hold.")


def _variant(values: tuple, tile: int) -> Variant:
    """Makes a variant of its five numbers."""
    n, p, low, high, share = values
    region = min(tile, -int(-n * high // _BLOCK) * _BLOCK)
    return Variant(int(n), int(p), float(low), float(high), float(share), region)


def store_from_config(config: Mapping[str, Any], vocabulary: Vocabulary | None = None) -> TileStore:
    """Cuts the training pictures of config.data into tiles and adds the drawings that data.synthesis asks for.

    data.synthesis.shares says how often each folder of data.root is drawn from; if it is empty, all tiles are equally
    likely. Drawings have the share data.synthesis.drawn_share of all draws. The pairs of data.synthesis.pairs_root are
    part of the store as well.

    Args:
      config: config.data of an experiment.
      vocabulary: what labels say; None makes a store without labels. Drawings have the label of nothing.

    Returns:
      The store, as numpy arrays.

    Raises:
      UserError: if a field or the source is wrong.
    """
    own = config["synthesis"]
    for name in ("tiles_per_image", "lettered", "sheets"):
        if own[name] < 0:
            raise UserError(f"data.synthesis.{name} is a number, 0 or more, got {own[name]}.")
    if not 0 <= own["drawn_share"] < 1:
        raise UserError(f"data.synthesis.drawn_share is a share, at least 0 and below 1, got {own['drawn_share']}.")
    if vocabulary and own["pairs_root"]:
        raise UserError("data.labels describes generated pictures, and data.synthesis.pairs_root has none; unset one.")
    drawn = _drawings(own)
    groups = _photographs(config)
    rest, total = 1 - (own["drawn_share"] if drawn else 0), sum(share for _, share in groups)
    groups = [(pictures, rest * share / total) for pictures, share in groups]
    labels = ()
    if vocabulary:
        labels = [labels_of(pictures.titles(), vocabulary) for pictures, _ in groups]
        labels = (*labels, np.zeros((len(drawn), 1 + vocabulary.slots), np.int32))
    store = make_store([*groups, (drawn, own["drawn_share"])], own["tile"], own["tiles_per_image"], labels)
    return store._replace(pairs=read_pairs(own["pairs_root"])) if own["pairs_root"] else store


def _photographs(config: Mapping[str, Any]) -> list[tuple[Any, float]]:
    """Returns (training pictures, share of the draws) for each folder of data.root that has a share of its own."""
    shares = tuple(config["synthesis"]["shares"])
    source = train_source(config, most_bytes=0)  # every picture is read once
    if not shares:
        return [(source, 1.0)]
    labels = list(parse_roots(config["root"])) if config["source"] == "folder" else [""]
    if len(shares) != len(labels) or min(shares) < 0 or not sum(shares) > 0:
        raise UserError(
            f"data.synthesis.shares holds a number, 0 or more, for each of the {len(labels)} folders of data.root, got "
            f"{shares}."
        )
    if len(labels) == 1:
        return [(source, 1.0)]
    return [(_part(source, label), share) for label, share in zip(labels, shares, strict=True)]


def _part(source: Source, label: str) -> Source:
    """Returns the pictures of a joined source that are in one of its folders."""
    inside = [i for i in range(len(source)) if source.name(i).startswith(f"{label}/")]
    numbers, titles = np.asarray(inside, np.int64), source.titles()
    return Source(numbers, source.__getitem__, f"Folder {label}", cache_bytes=0, title_of=titles.__getitem__)


def _drawings(own: Mapping[str, Any]) -> list[np.ndarray]:
    """Draws the pages of letters, shapes and lines, and lays out the sheets of drawn pictures."""
    side = own["tile"]
    made = [drawing(_SEED, index, side) for index in range(own["lettered"])]
    if own["drawn_root"] and own["sheets"]:
        pictures = make_source("folder", own["drawn_root"], "all", cache_bytes=0)
        made += sheets(pictures, _SEED, own["sheets"], side)
    return made
