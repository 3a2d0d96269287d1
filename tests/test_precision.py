"""Micro-batches, recomputation and bfloat16 change results by rounding only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import KEY, assert_close, build, sgd_step, tiny, wide
from toys import random_weights

from arbiscale_jax.errors import UserError
from arbiscale_jax.training import train
from arbiscale_jax.training.step import mean_over_parts

pytestmark = pytest.mark.usefixtures("one_device")


def test_four_micro_batches_of_two_equal_a_batch_of_eight():
    """The stage that draws most: posterior samples, times, noise and dropout."""
    net, params, frozen, batch = build(tiny("diffusion", **{"model.unet.dropout": 0.3}), 8)
    whole, metrics = sgd_step(net, params, frozen, batch)
    parts, of_parts = sgd_step(net, params, frozen, batch, devices=2, accumulate=4)
    assert_close(whole, parts, rtol=1e-5, atol=1e-6)
    assert_close(metrics, of_parts, rtol=1e-5)
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), whole, params))) > 1e-3


def test_micro_batches_put_outputs_back_in_order():
    data = {"x": jnp.arange(12.0).reshape(6, 2)}
    (loss, (metrics, out)), grads = mean_over_parts(
        lambda d: ((jnp.mean(d["x"]), ({"n": jnp.float32(len(d["x"]))}, 2 * d["x"])), jnp.sum(d["x"])), data, 3
    )
    np.testing.assert_array_equal(out, 2 * data["x"])
    assert (float(loss), float(metrics["n"]), float(grads)) == (5.5, 2, 22)


def test_a_batch_that_does_not_divide_into_micro_batches_is_refused(tmp_path):
    for accumulate, message in ((0, "accumulate must be at least 1"), (3, "the number of devices times .*=3")):
        with pytest.raises(UserError, match=message):
            train(tiny("first_stage", **{"train.accumulate": accumulate}), tmp_path)


def loss_of(net, frozen, batch):
    """Returns the stage's loss as a function of the trained weights."""
    return lambda params: net.loss_fn(params, frozen, batch, KEY)[0]


def losses_of(net, frozen, batch):
    """Returns loss and metrics as a function of the trained weights and the discriminator's, where there is one."""

    def losses(params, disc):
        return net.loss_fn(params, frozen, batch, KEY, *([disc] if net.critic else []))

    return losses


def test_remat_changes_the_loss_by_rounding_only():
    results = []
    for remat in (False, True):  # alignment: the gradient passes f_theta, D and the U-Net
        net, params, frozen, batch = build(tiny("align", **{"train.remat": remat}), 2)
        value_and_grad = jax.jit(jax.value_and_grad(loss_of(net, frozen, batch))).trace(params)
        recomputed = [eqn for eqn in value_and_grad.jaxpr.eqns if "remat" in eqn.primitive.name]
        assert len(recomputed) >= 4 + 4 + 5 + 1 if remat else not recomputed  # f_theta, D, the U-Net, its attention
        results.append(value_and_grad.lower().compile()(params))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["first_stage", "align"])
def test_bfloat16_changes_the_loss_by_rounding_only(name, tiny_lpips):
    metrics = {}
    fields = {"loss.lpips_weight": 0.1, "loss.disc_weight": 0.5, "loss.align_lpips_weight": 0.1, "loss.weight_cap": 5.0}
    for dtype in ("float32", "bfloat16"):
        net, params, frozen, batch = build(wide(name, dtype=dtype, **fields), 2)
        disc = random_weights(jax.eval_shape(net.critic.init, KEY)["params"]) if net.critic else {}
        loss = losses_of(net, frozen, batch)
        if dtype == "float32":
            metrics[dtype] = jax.jit(loss)(params, disc)[1]
    (_, metrics["bfloat16"]), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, disc)
    for name, value in metrics["bfloat16"].items():
        assert value.dtype == jnp.float32
        assert value != metrics["float32"][name] or name == "right"  # which counts logits by their signs
        rtol = 0.2 if name == "adaptive_weight" else 0.1  # a ratio of gradients
        np.testing.assert_allclose(value, metrics["float32"][name], rtol=rtol, atol=0.01, err_msg=name)
    assert all(x.dtype == jnp.float32 and np.all(np.isfinite(x)) for x in jax.tree.leaves(grads))
