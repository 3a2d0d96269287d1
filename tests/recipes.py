"""What tests of the recipes share: configurations of one level, stages built of them, a step by SGD."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from batches import first_batch
from toys import random_weights
from toys import tiny as two_levels

from arbiscale_jax import diffusion
from arbiscale_jax.runtime import mesh
from arbiscale_jax.training import start
from arbiscale_jax.training.optimizer import Optimizer
from arbiscale_jax.training.stages import build_stage
from arbiscale_jax.training.state import create_state
from arbiscale_jax.training.step import make_train_step

KEY = jax.random.key(7)
ALPHA_BAR = diffusion.make_alpha_bar(1000, 0.0015, 0.0155)


def tiny(stage_name, **fields):
    """A config of any stage with networks of one level, which compile fast."""
    return two_levels(stage_name, **{"model.first_stage.ch_mult": (1,), "model.unet.channel_mult": (1,)} | fields)


def wide(stage_name, **fields):
    """`tiny` with a window of 32 pixels, large enough for AlexNet, and a small discriminator."""
    data = {"data.target_min": 32, "data.target_max": 40, "data.target_patch": 32}
    return tiny(stage_name, **data, **{"loss.lpips_net": "alex", "loss.disc_layers": 2, "loss.disc_ch": 4} | fields)


def build(config, batch_size=4):
    """Returns the stage, its params and frozen weights (LPIPS among them) and a batch, all as training has them."""
    net = build_stage(config)
    batch = {k: jnp.asarray(v) for k, v in first_batch(config.data, 0, batch_size).items()}
    params, frozen = start.split(random_weights(jax.eval_shape(net.init, KEY, batch)), net.trained)
    if config.stage != "first_stage":
        frozen["scale_factor"] = jnp.float32(0.9)
    return net, params, frozen | ({"lpips": net.lpips} if net.lpips else {}), batch


def assert_close(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def assert_gradients_close(found, expected, most=0.02):
    """The difference is a small part of the whole gradient. It is numpy's: JAX would compile for each shape."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    found, expected = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (found, expected))
    assert np.linalg.norm(found - expected) < most * np.linalg.norm(expected)


def sgd_step(net, params, frozen, batch, devices=1, **options):
    """One update by SGD on so many devices; returns the new weights and the metrics."""
    m, optimizer = mesh.make_mesh(jax.devices()[:devices]), Optimizer(optax.sgd(0.1))
    state = mesh.replicate(create_state(params, optimizer.tx, 0.0), m)
    step = make_train_step(net, optimizer, KEY, sharding=mesh.replicated(m), **options)
    state, metrics = step(state, mesh.replicate(frozen, m), mesh.shard_batch(batch, m))
    return jax.device_get((state.params, metrics))
