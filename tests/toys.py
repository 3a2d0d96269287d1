"""What tests of training share: a linear model with noise in its loss, which compiles in no time, and tiny networks."""

import jax
import jax.numpy as jnp
import numpy as np

from arbiscale_jax.experiments import get_base_config
from arbiscale_jax.training import checkpoint
from arbiscale_jax.training.optimizer import make_optimizer
from arbiscale_jax.training.stages import stage
from arbiscale_jax.training.state import create_state


def random_weights(shapes):
    """Fills a tree of shapes with random numbers of a network's usual sizes, zero-initialised layers included.

    Compiling a network's own initialisation takes longer than compiling its training step.
    """
    rng = np.random.default_rng(0)

    def draw(path, x):
        value = rng.standard_normal(x.shape)
        if path[-1].key == "scale":
            return np.float32(1 + 0.1 * value)
        return np.float32(value / np.sqrt(max(np.prod(x.shape[:-1]), 1)) if x.ndim > 1 else 0.1 * value)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def leaves_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def toy_stage(config):
    def init(key, batch):
        return {"unet": {"w": jax.random.normal(key, (3,))}, "first_stage": {"encoder": {"b": jnp.ones(3)}}}

    def loss_fn(params, frozen, batch, key):
        noise = jax.random.normal(key, batch["image"].shape)
        y = batch["image"] * params["unet"]["w"][None] + frozen["first_stage"]["encoder"]["b"][None] + 0.1 * noise
        return jnp.mean((y - 2 * batch["image"]) ** 2), {"noise": jnp.mean(noise)}

    def eval_fn(params, frozen, batch, key):
        return {"loss": loss_fn(params, frozen, batch, key)[0]}, jnp.zeros((len(batch["image"]), 2, 4, 4, 3))

    return stage.Stage(init, ("unet",), loss_fn, eval_fn)


def toy_batches(cfg, seed, batch_size, start_step=0, rows=None):
    for k in range(start_step, 10_000):
        yield {"image": np.random.default_rng((seed, k)).normal(size=(batch_size, 3)).astype(np.float32)}


def newest_state(run_dir, config):
    """Everything in a run's newest checkpoint."""
    tx = make_optimizer(config.train.learning_rate)
    like = create_state({"unet": {"w": jnp.zeros(3)}}, tx, config.train.ema_decay)
    with checkpoint.open_manager(run_dir, config.train.keep) as manager:
        return checkpoint.restore(manager, like)


def tiny(stage_name, **fields):
    """A config of any stage at toy size: SR from 4 to 16 pixels."""
    c = get_base_config()
    c.stage = stage_name
    c.model.first_stage.update(ch=8, ch_mult=(1, 2), num_res_blocks=1, num_groups=4, z_channels=2, double_z=True)
    c.model.first_stage.mid_attention = False
    c.model.liif.hidden = (16, 16)
    c.model.unet.update(model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_rates=(), num_groups=4)
    c.model.unet.num_head_channels = 8
    c.model.condition.enabled = True
    c.data.update(image_size=16, lr_size=4, target_min=8, target_max=16, target_patch=8, val_num=2)
    c.train.update(steps=3, batch_size=4, log_every=2, val_every=0, checkpoint_every=100, learning_rate=1e-3)
    c.update_from_flattened_dict(fields)
    return c.lock()
