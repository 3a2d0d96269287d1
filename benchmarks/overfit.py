"""One batch can be learnt by heart: the first stage to over 32 dB, the diffusion loss (t, eps fixed) to under 5 %.

Run: python benchmarks/overfit.py
"""

import time
from contextlib import closing

import jax
import jax.numpy as jnp
import optax

from arbiscale_jax import data, models
from arbiscale_jax.experiments import get_quickstart_config
from arbiscale_jax.runtime.random import fold_name
from arbiscale_jax.training import start, step
from arbiscale_jax.training.optimizer import make_optimizer
from arbiscale_jax.training.stages import build_stage
from arbiscale_jax.training.stages.stage import draw_latent, example_keys, psnr, render_whole


def overfit(loss_fn, params, steps: int, learning_rate: float, report):
    """Runs Adam on a fixed loss; calls report(step, loss, params) ten times."""
    tx = make_optimizer(learning_rate, 50, 1.0)

    @jax.jit
    def update(params, opt_state):
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    opt_state = tx.init(params)
    for i in range(steps):
        params, opt_state, loss = update(params, opt_state)
        if i % (steps // 10) == 0 or i == steps - 1:
            report(i, float(loss), params)
    return params


def main():
    began = time.perf_counter()
    config = get_quickstart_config("sr", "first_stage").copy_and_resolve_references()
    config.data.update(target_min=48, target_max=48, target_patch=48)  # the whole picture at its own size
    config.data.lr_size = 12
    with closing(data.train_batches(config.data, 0, 4)) as batches:
        batch = {k: jnp.asarray(v) for k, v in next(batches).items()}
    stage = build_stage(config)
    params = jax.jit(stage.init)(jax.random.key(0), batch)

    net = models.build_first_stage(config.model)

    def picture_psnr(params):
        moments = net.apply({"params": params["first_stage"]}, batch["image"], method="posterior")
        keys = example_keys(fold_name(key, "z_0"), batch)  # the posterior sample is fixed, as t and eps are below
        z = draw_latent(keys, *moments)
        return psnr(render_whole(net, params["first_stage"], z, 48), batch["image"])

    key, picture_psnr = jax.random.key(1), jax.jit(picture_psnr)

    def report(i, loss, params):
        seconds = time.perf_counter() - began
        quality = f"L1 {loss:.4f}  PSNR {float(picture_psnr(params)):.2f} dB"
        print(f"first stage  step {i}  {quality}  {seconds:.0f} s", flush=True)

    params = overfit(lambda p: stage.loss_fn(p, {}, batch, key)[0], params, 800, 3e-3, report)

    config.stage = "diffusion"
    stage = build_stage(config)
    fresh = jax.jit(stage.init)(step.stream(0, "params"), batch)
    params, frozen = start.split({**fresh, **params}, stage.trained)
    frozen["scale_factor"] = stage.scale_factor(frozen, batch, key)
    losses = []

    def report(i, loss, params):
        losses.append(loss)
        print(f"diffusion    step {i}  loss {loss:.4f}  {100 * loss / losses[0]:.1f} % of its start", flush=True)

    overfit(lambda p: stage.loss_fn(p, frozen, batch, key)[0], params, 800, 2e-3, report)


if __name__ == "__main__":
    main()
