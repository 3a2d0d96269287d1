"""Holds networks together with weights, and says how much of them a device computes at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from arbiscale_jax.artifacts.vocabulary import Vocabulary, vocabulary_of
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.mesh import batch_sharding, make_mesh, replicate, replicated

from .compiled import get_networks, narrow_layers
from .networks import Networks

TILES = {"cpu": 64, "gpu": 256}  # side of a tile in pixels; the activations of one tile are in memory at a time
CELLS_AT_ONCE = {"cpu": 1, "gpu": 2**18}  # latent cells of a batch of sheets on a device, which is at least one sheet
BATCHES = (1, 8, 64)  # numbers of sheets that are computed together; each is a program


class Engine(NamedTuple):
    """Holds networks together with weights."""

    networks: Networks
    params: Mapping  # {"first_stage", "unet", "scale_factor"}, see Networks
    tile: int  # side of a rendered tile in pixels
    put: Callable[[Any], Any] = lambda x: x  # places a tree of arrays [b ...] on devices
    devices: int = 1  # over how many `put` divides a batch
    thrift: int = 1  # divides the cells of a batch, after a device had too little memory

    @property
    def config(self) -> Mapping:
        """Returns the `model` part of the configuration."""
        return self.networks.config

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Returns what the model knows of names, or None if it knows no labels."""
        return vocabulary_of(self.config)

    def first_stage(self, part: str) -> Mapping:
        """Returns the weights, and raises UserError if `part` of the auto-encoder is missing, as in an import."""
        if part not in self.params.get("first_stage", {}):
            raise UserError(
                f"This model has no {part} (first_stage/{part}); train one, or load a model with a whole auto-encoder."
            )
        return self.params

    def unet(self, *, conditioned: bool) -> Mapping:
        """Returns the weights, and raises UserError if there is no U-Net, or if it is of the other kind."""
        if "unet" not in self.params:
            raise UserError(
                "This model is an auto-encoder alone, without a U-Net: it encodes, decodes and renders only."
            )
        if conditioned != self.config["condition"]["enabled"]:
            raise UserError(
                "This U-Net is unconditional: c must be None." if conditioned else "The U-Net needs a condition c."
            )
        return self.params

    def need_decoder(self) -> None:
        """Raises UserError if D or f_theta is missing."""
        self.first_stage("decoder")
        self.first_stage("liif")

    def need_condition(self) -> None:
        """Raises UserError if the model takes no condition."""
        if not self.config["condition"]["enabled"]:
            raise UserError("This model generates images and takes no condition; upscaling needs an SR model.")

    def generated_shape(self, canvas: tuple[int, int] | None = None) -> tuple[int, int, int]:
        """Returns the shape (h, w, c) of a generated latent, and raises UserError if the model needs a condition.

        `canvas` is the (h, w) that is asked for; None means the square of training.
        """
        if self.config["condition"]["enabled"]:
            raise UserError("This model upscales images and cannot generate without one; use an unconditional model.")
        side = self.config["sampling"]["size"] // self.networks.factor
        height, width = canvas or (side, side)
        return height, width, self.config["first_stage"]["z_channels"]

    def at_once(self, cells: int, wanted: int) -> int:
        """Returns how many arrays are computed together: one, one per device, or one of BATCHES.

        Args:
          cells: latent cells of an array.
          wanted: number of arrays; the last batch is filled up. Of BATCHES, multiples of `devices` count.
        """
        most = self.devices * max(1, CELLS_AT_ONCE.get(jax.default_backend(), 1) // (cells * self.thrift))
        sizes = sorted({1, self.devices, *(num for num in BATCHES if num % self.devices == 0)})
        fitting = [num for num in sizes if num <= most]
        return next((num for num in fitting if num >= wanted), fitting[-1])

    def thriftier(self) -> "Engine":
        """Returns an engine of smaller batches, or this one if it computes one array at a time on each device."""
        return self if self.at_once(1, BATCHES[-1]) <= self.devices else self._replace(thrift=8 * self.thrift)

    def strength(self, restore: float, num: int):
        """Returns the strength of the damage that the U-Net is told, [num], or None if it is told nothing."""
        return jnp.full(num, restore, jnp.float32) if self.config["unet"]["strength"] else None


def tile_side(images: float = 1) -> int:
    """Returns the side of the tiles of so many images that are rendered together on a device, in the same memory."""
    return max(16, int(TILES.get(jax.default_backend(), 256) / math.sqrt(images)))


def spread(engine: Engine, devices: Sequence) -> Engine:
    """Returns an engine that divides each batch over local devices, if their number divides the batch."""
    mesh = make_mesh(devices)

    def put(tree):
        divided = all(len(x) % mesh.size == 0 for x in jax.tree.leaves(tree))
        return jax.device_put(tree, batch_sharding(mesh) if divided else replicated(mesh))

    return engine._replace(params=replicate(engine.params, mesh), put=put, devices=mesh.size)


def make_engine(
    config: Mapping, params: Mapping, scale_factor: float, dtype: DTypeLike = jnp.float32, tile: int | None = None
) -> Engine:
    """Makes an engine; the arguments are those of LatentModel."""
    precision = "highest"
    if dtype == "tensorfloat32":
        dtype, precision = jnp.float32, "tensorfloat32"
    networks = get_networks(config, dtype, precision)
    tile = tile or tile_side()
    engine = Engine(networks, {**_cast(networks, params), "scale_factor": jnp.float32(scale_factor)}, tile)
    devices = jax.local_devices()
    return spread(engine, devices) if len(devices) > 1 and jax.default_backend() != "cpu" else engine


def _cast(networks: Networks, params: Mapping) -> Mapping:
    """Returns the weights in the types in which the layers compute, so that no step of sampling converts them."""
    if networks.dtype == jnp.float32:
        return params
    narrow = narrow_layers(networks, params)

    def cast(path, x):
        keys = tuple(key.key for key in path)
        return x.astype(networks.dtype) if keys[:-1] in narrow else x

    return jax.tree_util.tree_map_with_path(cast, params)
