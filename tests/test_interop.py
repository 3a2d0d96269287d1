"""Parity with the reference implementation on its own checkpoints.

tests/data holds one model of the reference (random weights) without its averaged copy; where the workplace's full
parity folder lies beside the checkout, both its models are checked in every array.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from arbiscale_jax import UserError, diffusion, interop
from arbiscale_jax.interop import layout

torch = pytest.importorskip("torch")

HERE = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared" / "parity"
ARCH = json.loads((HERE / "tiny_sr.json").read_text())
MODELS = {
    "tiny_sr": HERE,
    **({f"shared {name}": SHARED for name in ("tiny_sr", "tiny_gen")} if SHARED.is_dir() else {}),
}


def close(found, wanted, what):
    """Float32 agreement: the largest difference is under 1e-4 of the array's std."""
    assert np.abs(np.asarray(found) - wanted).max() < 1e-4 * wanted.std(), what


def arrays_of(path):
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module", params=MODELS)
def parity(request):
    stem = MODELS[request.param] / request.param.split()[-1]
    return interop.load_torch(f"{stem}.ckpt", f"{stem}.json"), arrays_of(f"{stem}.npz"), stem


def test_every_part_agrees_with_the_reference(parity):
    model, arrays, _ = parity
    mean, log_var = model.posterior(arrays["hr"])
    close(mean, arrays["encode_mean"], "encode_mean")
    close(model.encode(arrays["hr"]), arrays["encode_mean"] * model.scale_factor, "encode")
    assert (log_var is None) == ("posterior_logvar" not in arrays)
    if log_var is not None:
        close(log_var, arrays["posterior_logvar"], "posterior_logvar")
    c = None
    if "cond" in arrays:
        c = model.condition(arrays["lr"])
        close(c, arrays["cond"], "cond")
    for key, wanted in arrays.items():
        name, _, number = key.rpartition("_")
        if name == "decode":
            close(model.decode(mean * model.scale_factor, (int(number), int(number))), wanted, key)
        elif name == "eps":
            close(model.denoise(arrays["z_t"], int(number), c), wanted, key)
        elif name == "ddim":
            np.testing.assert_array_equal(diffusion.ddim_times(int(number), 1000), arrays[f"{key}_timesteps"])
            close(model.sample(arrays["z_t"], c, steps=int(number)), wanted, key)


def test_both_alignment_losses_agree_with_the_reference(parity):
    model, arrays, _ = parity
    z_0, t, noise = (
        model.encode(arrays["hr"]),
        jnp.asarray(arrays["align_t"], jnp.int32),
        jnp.asarray(arrays["align_noise"]),
    )
    c = model.condition(arrays["lr"]) if "lr" in arrays else None
    z_t = diffusion.q_sample(z_0, noise, t, model.alpha_bar)
    eps_hat = model.denoise(z_t, t, c)
    x_hat = model.decode(diffusion.predict_z_0(z_t, eps_hat, t, model.alpha_bar), arrays["hr"].shape[1:3])
    l_dm = jnp.mean(diffusion.eps_loss(eps_hat, noise))
    l_recon = jnp.mean(diffusion.recon_loss(jnp.asarray(x_hat), jnp.asarray(arrays["hr"]), t, model.alpha_bar))
    assert float(l_dm) == pytest.approx(float(arrays["align_loss_l1_recon"]), rel=1e-5)
    assert float(l_recon) == pytest.approx(float(arrays["align_loss_l1_image"]), rel=1e-5)
    assert float(l_dm + l_recon) == pytest.approx(float(arrays["align_loss"]), rel=1e-5)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full parity folder is not beside the checkout")
@pytest.mark.parametrize("name", ["tiny_sr", "tiny_gen"])
def test_averaged_weights_agree_with_the_reference(name):
    model = interop.load_torch(SHARED / f"{name}.ckpt", SHARED / f"{name}.json", ema=True)
    arrays = arrays_of(SHARED / f"{name}.npz")
    c = model.condition(arrays["lr"]) if "lr" in arrays else None
    close(model.denoise(arrays["z_t"], 400, c), arrays["eps_ema_400"], "eps_ema_400")


@pytest.fixture(scope="module")
def state():
    return torch.load(HERE / "tiny_sr.ckpt", weights_only=True)["state_dict"]


def saved(tmp_path, state):
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def test_averaged_weights_are_found_under_their_undotted_names(tmp_path, state):
    prefix = "model.diffusion_model."
    averaged = {
        "model_ema.diffusion_model" + k[len(prefix) :].replace(".", ""): v
        for k, v in state.items()
        if k.startswith(prefix)
    }
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int32)}
    raw = {k: torch.zeros_like(v) if k.startswith(prefix) else v for k, v in state.items()}
    path = saved(tmp_path, {**raw, **averaged, **counters})
    wanted = interop.load_torch(HERE / "tiny_sr.ckpt", ARCH).params["unet"]
    found = interop.load_torch(path, ARCH, ema=True).params["unet"]
    np.testing.assert_array_equal(found["conv_in"]["kernel"], wanted["conv_in"]["kernel"])
    assert not np.any(interop.load_torch(path, ARCH).params["unet"]["conv_in"]["kernel"])


def test_a_scale_factor_in_the_file_wins(tmp_path, state):
    path = saved(tmp_path, {**state, "scale_factor": torch.tensor(0.25)})
    assert interop.load_torch(path, ARCH).scale_factor == 0.25


def test_reading_then_naming_again_covers_every_key(state):
    entries = [("first_stage_model.", e) for e in layout.first_stage_entries(interop.model_config(ARCH))]
    entries += [("model.diffusion_model.", e) for e in layout.unet_entries(interop.model_config(ARCH))]
    assert {prefix + name for prefix, e in entries for name in layout.tensors(e)} == set(state)


def changed(**parts):
    return {**ARCH, **{k: {**ARCH[k], **v} if isinstance(v, dict) else v for k, v in parts.items()}}


@pytest.mark.parametrize(
    "arch, match",
    [
        (changed(unet=dict(num_res_blocks=2)), "is missing; does arch"),
        (changed(unet=dict(attention_resolutions=[])), "is missing; does arch"),
        (changed(liif=dict(hidden_list=[16, 32, 32, 32])), "does not fit arch"),
        (changed(first_stage=dict(z_channels=5), unet=dict(in_channels=10, out_channels=5)), "does not fit arch"),
        (changed(unet=dict(width=3)), "arch.unet.width is unknown"),
        (changed(unet=dict(dims=3)), "dims = 3 is not supported"),
        (changed(unet=dict(in_channels=3)), "maps 3 to 3 channels"),
        ({k: v for k, v in ARCH.items() if k != "linear_end"}, "lacks the field 'linear_end'"),
        ("no/such.json", "cannot be read"),
    ],
)
def test_another_architecture_is_one_clear_sentence(arch, match):
    with pytest.raises(UserError, match=match):
        interop.load_torch(HERE / "tiny_sr.ckpt", arch)


@pytest.mark.parametrize(
    "content, match",
    [
        (None, "There is no checkpoint"),
        (b"", "cannot be read"),
        (b"not a zip", "cannot be read"),
        ("half", "cannot be read"),
        ("code", "cannot be read"),
    ],
    ids=["missing", "empty", "text", "truncated", "code"],
)
def test_a_bad_file_is_one_clear_sentence_and_runs_nothing(tmp_path, content, match):
    path, trap = tmp_path / "bad.ckpt", tmp_path / "ran"
    if content == "half":
        whole = (HERE / "tiny_sr.ckpt").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "code":

        class Trap:
            def __reduce__(self):
                return (open, (str(trap), "w"))

        torch.save({"state_dict": Trap()}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=match):
        interop.load_torch(path, ARCH)
    assert not trap.exists()


def test_a_key_that_nothing_uses_is_named(tmp_path, state):
    path = saved(tmp_path, {**state, "first_stage_model.encoder.0.extra.weight": torch.zeros(3)})
    with pytest.raises(UserError, match="encoder.0.extra.weight is unexpected"):
        interop.load_torch(path, ARCH)


def test_a_state_without_a_first_stage_or_averages_says_so(tmp_path, state):
    with pytest.raises(UserError, match="holds no first stage"):
        interop.load_torch(saved(tmp_path, {k: v for k, v in state.items() if k.startswith("model.")}), ARCH)
    with pytest.raises(UserError, match="load it with ema=False"):
        interop.load_torch(HERE / "tiny_sr.ckpt", ARCH, ema=True)
