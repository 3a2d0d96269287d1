"""The methods with which the paper compares, from training to files: stage, configurations, models and commands."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batches import first_batch
from conftest import train_on_one_device
from image_files import pixels, write
from toys import random_weights

import arbiscale_jax as aj
from arbiscale_jax import UserError, baselines, perceptual
from arbiscale_jax.artifacts.registry import write_export
from arbiscale_jax.cli import config_flag, main, program
from arbiscale_jax.experiments import get_comparison_config
from arbiscale_jax.inference import resolve_baseline
from arbiscale_jax.training import batches, loop
from arbiscale_jax.training.stages import build_stage, esrgan_losses
from arbiscale_jax.training.stages import stage as common

pytestmark = pytest.mark.usefixtures("one_device")
METHODS = tuple(baselines.DEFAULTS)
UNET = dict(channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_levels=(), num_groups=4, dropout=0.0)
NOISE = dict(timesteps=20, first_beta=1e-3, last_beta=0.5, steps=2, scale=4.0)
TINY = {
    "liif": dict(channels=8, blocks=1, hidden=(16, 16)),
    "sr3": UNET | NOISE,
    "idm": UNET | NOISE | dict(implicit_width=8, encoder_channels=8, encoder_blocks=1, train_sizes=2),
    "esrgan": dict(features=8, growth=4, blocks=1),
}


def tiny(method: str, **fields):
    """The configuration of a method on photographs with a tiny network, from 8 to 32 pixels."""
    config = get_comparison_config(method, "photos").unlock()
    config.model.baseline.update(TINY[method])
    least = 8 if method == "liif" else 32
    config.data.update(source="embedded", root="", image_size=32, lr_size=8, target_min=least, target_max=32)
    config.data.update(target_patch=8, val_num=2, transpose=False)
    config.loss.disc_weight = 0.0
    config.train.update(steps=2, minutes=0.0, batch_size=2, val_every=0, checkpoint_every=100, warmup_steps=0)
    config.update_from_flattened_dict(fields)
    return config.lock()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training run of LIIF, of two updates."""
    workdir = tmp_path_factory.mktemp("runs") / "liif"
    with pytest.MonkeyPatch.context() as patch:
        train_on_one_device(patch)
        assert np.isfinite(loop.train(tiny("liif"), workdir)["val/psnr"])
    return workdir


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns exported(method) -> a folder with random weights; compiling a network's own initialisation takes long."""

    def make(method):
        folder = tmp_path_factory.getbasetemp() / f"model_{method}"
        if not folder.exists():
            model = tiny(method).model.to_dict()
            shapes = jax.eval_shape(lambda: baselines.init(model["baseline"], jax.random.key(0)))
            write_export(folder, {"model": model}, {"baseline": random_weights(shapes)}, "", np.float32)
        return folder

    return make


@pytest.fixture
def picture():
    return np.random.default_rng(3).integers(0, 256, (9, 7, 3), dtype=np.uint8)


# --- training ---


@pytest.mark.parametrize("method", METHODS)
def test_each_method_overfits_one_batch(method):
    config = tiny(method)
    stage, batch = build_stage(config), first_batch(config.data, 0, 2)
    params = random_weights(jax.eval_shape(stage.init, jax.random.key(0), batch))
    tx = optax.adam(3e-3)
    key = jax.random.key(1)  # the same noise in every step

    @jax.jit
    def step(params, opt_state):
        (loss, _), grads = jax.value_and_grad(stage.loss_fn, has_aux=True)(params, {}, batch, key)
        changes, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, changes), opt_state, loss

    opt_state, losses = tx.init(params), []
    for _ in range(60):
        params, opt_state, loss = step(params, opt_state)
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0], losses[:: len(losses) - 1]


def test_idm_sees_its_sizes_in_turns_and_smaller_ones_are_reductions():
    """The mean colour stays, which it would not if pixels were only picked."""
    found = {}
    for sizes, first in ((2, 1), (1, 1)):  # update 1 is the second
        config = tiny("idm", **{"model.baseline.train_sizes": sizes})
        made = batches.train_batches(config, first, [0, 1], loop.make_mesh(1))
        found[sizes] = [np.asarray(next(made)["image"]) for _ in range(2)]
        made.close()
    assert [x.shape for x in found[2]] == [(2, 16, 16, 3), (2, 32, 32, 3)]
    np.testing.assert_array_equal(found[2][1], found[1][1])
    np.testing.assert_allclose(found[2][0].mean((1, 2)), found[1][0].mean((1, 2)), atol=0.02)


def test_esrgan_adds_its_losses_when_the_discriminator_joins(monkeypatch):
    """With weights of one channel in place of VGG's, the loss is the paper's sum of its terms."""
    config = tiny("esrgan", **{"loss.disc_weight": 5e-3, "loss.disc_ch": 4})
    rng = np.random.default_rng(0)
    convs = tuple(
        (np.float32(rng.normal(size=(3, 3, 3 if i == 0 else 1, 1))), np.zeros(1, np.float32)) for i in range(13)
    )

    vgg = perceptual.Lpips("vgg", convs, tuple(np.ones(1, np.float32) for _ in range(5)))
    monkeypatch.setattr(common, "load_lpips", lambda net: vgg)
    stage, batch = build_stage(config), first_batch(config.data, 0, 2)
    params = random_weights(jax.eval_shape(stage.init, jax.random.key(0), batch))
    disc = random_weights(jax.eval_shape(stage.critic.init, jax.random.key(0))["params"])
    loss_fn, judge = jax.jit(stage.loss_fn), jax.jit(stage.critic.net.apply)
    total, terms = loss_fn(params, {"lpips": (vgg,)}, batch, None, disc)
    x_hat = jax.jit(baselines.build(config.model.baseline.to_dict()).apply)({"params": params["baseline"]}, batch["lr"])
    percep = jnp.mean(jax.jit(esrgan_losses.perceptual_loss)(vgg, x_hat, batch["image"]))
    real, fake = (judge({"params": disc}, y) for y in (batch["image"], x_hat))
    g = jnp.mean(jax.nn.softplus(real - fake.mean())) + jnp.mean(jax.nn.softplus(real.mean() - fake))
    np.testing.assert_allclose(terms["loss"], percep + 5e-3 * g + 1e-2 * terms["l1"], rtol=1e-4)
    np.testing.assert_allclose(total, terms["loss"] + terms["d"], rtol=1e-5)
    alone, metrics = loss_fn(params, {"lpips": (vgg,)}, batch, None)
    np.testing.assert_allclose(alone, jnp.mean(jnp.abs(x_hat - batch["image"])) / 2, rtol=1e-5)
    assert metrics == {}


@pytest.mark.parametrize(
    "method, fields, message",
    [
        ("sr3", {"data.image_size": 36}, "must be model.baseline.scale=4 times data.lr_size=8"),
        ("sr3", {"data.image_size": 33, "data.lr_size": 11, "model.baseline.scale": 3.0}, "must be a multiple of 2"),
        ("sr3", {"model.baseline.first_beta": 0.7}, "has no noise schedule"),
        ("idm", {"model.baseline.train_sizes": 0}, "train_sizes is from 1 to data.image_size=32, got 0"),
        ("esrgan", {"data.lr_size": 16}, "data.image_size=32 must be 4 times data.lr_size=16"),
        ("liif", {"data.lr_size": 0}, "set data.lr_size"),
        ("liif", {"model.baseline.method": "srcnn"}, "method is one of liif, sr3, idm, esrgan, got 'srcnn'"),
    ],
)
def test_fields_that_do_not_fit_are_named(method, fields, message):
    with pytest.raises(UserError, match=message):
        build_stage(tiny(method, **fields))


def test_a_run_starts_from_another_of_the_same_network_only(run, tmp_path):
    config = tiny("liif", **{"init_from": str(run), "train.steps": 1, "train.learning_rate": 0.0})
    loop.train(config, tmp_path / "more")
    first, second = (aj.load(path).params for path in (run, tmp_path / "more"))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    other = tiny("liif", **{"init_from": str(run), "model.baseline.channels": 4})
    with pytest.raises(UserError, match="trained with another model.baseline.channels"):
        loop.train(other, tmp_path / "other")
    other = tiny("liif", **{"init_from": "photos"})
    with pytest.raises(UserError, match="is a model of another kind"):
        loop.train(other, tmp_path / "kind")


# --- models ---


@pytest.mark.parametrize("method", METHODS)
def test_models_upscale_to_any_size(method, exported, picture):
    model = aj.load(exported(method))
    assert method in repr(model)
    found = model.upscale(picture, size=(13, 22), seed=1)
    assert found.shape == (13, 22, 3) and found.dtype == np.uint8 and found.std() > 1
    done: list[tuple[int, int]] = []
    answers = model.upscale(picture, size=(13, 22), samples=2, seed=1, progress=lambda *now: done.append(now))
    parts = 2 * (model.fields["steps"] if method in baselines.DIFFUSION else 1)  # evaluations, or pictures
    assert done == [(i + 1, parts) for i in range(parts)]
    np.testing.assert_array_equal(answers[0], found)  # answer i depends on (seed, i) alone
    assert (answers[1] != found).any() == (method in baselines.DIFFUSION)
    [(_, _, rows)] = model.upscale_each([picture], [(13, 22)], box=(2, 3, 5, 7), seed=1)
    np.testing.assert_array_equal(np.concatenate(list(rows)), found[2:7, 3:10])


def test_a_run_and_its_export_are_one_model(run, tmp_path, picture):
    aj.export(run, tmp_path / "export", dtype=np.float32)
    found = aj.load(run).upscale(picture, scale=2)
    np.testing.assert_array_equal(aj.load(tmp_path / "export").upscale(picture, scale=2), found)
    assert "super-resolution" in (tmp_path / "export" / "README.md").read_text()
    grey = picture[..., 0].astype(np.uint16) * 257
    enlarged = aj.load(run).upscale(grey, scale=2)
    assert enlarged.shape == (18, 14) and enlarged.dtype == np.uint16


def test_liif_renders_in_bands_what_it_renders_as_a_whole(run, picture, monkeypatch):
    model = aj.load(run)
    whole = model.upscale(picture, scale=3)
    monkeypatch.setattr("arbiscale_jax.inference.enlargers.BAND_PIXELS", 21 * 8)  # 27 rows in bands of 8
    np.testing.assert_array_equal(aj.load(run).upscale(picture, scale=3), whole)


@pytest.mark.parametrize(
    "given, error, message",
    [
        (dict(restore=0.5), UserError, "The method idm has no option restore"),
        (dict(steps=21), UserError, "steps is at most 20"),
        (dict(steps=0), UserError, "steps is a whole number >= 1"),
        (dict(eta=1.5), UserError, "eta lies in"),
    ],
)
def test_options_that_a_method_lacks_are_named(given, error, message):
    fields = baselines.DEFAULTS["idm"] | TINY["idm"]
    assert resolve_baseline(fields, {"steps": None}) == (2, 1.0)
    with pytest.raises(error, match=message):
        resolve_baseline(fields, given)
    with pytest.raises(UserError, match="The method liif has no option steps"):
        resolve_baseline(baselines.DEFAULTS["liif"], {"steps": 3})


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(method="srcnn"),
            "model.baseline.method in .* is 'srcnn', where one of liif, sr3, idm, esrgan is expected",
        ),
        (dict(blocks="two"), "model.baseline.blocks in .* is 'two', where a whole number"),
        (dict(colour=1), "has the unknown field model.baseline.colour"),
        (dict(channels=9), "Weight baseline/.* is .* where .* needs"),
        (dict(encoder="rdn"), "holds the weight baseline/|lacks the weight baseline/"),
    ],
)
def test_a_damaged_model_is_refused_in_one_sentence(change, message, run, tmp_path):
    folder = aj.export(run, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["model"]["baseline"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        aj.load(folder)


# --- commands ---


def published(method: str) -> dict:
    """What a published checkpoint of the method holds, with random weights of a small network."""
    torch = pytest.importorskip("torch")
    import reference_baselines
    import reference_diffusers
    import reference_rrdb
    from reference_networks import Weights

    cfg = reference_diffusers.UNET | dict(inner_channel=32, res_blocks=1, image_size=32)
    with torch.no_grad():
        if method == "sr3":
            return dict(reference_diffusers.sr3_weights(cfg | dict(inner_channel=64, channel_multiplier=[1, 1])))
        if method == "idm":
            return dict(reference_diffusers.idm_weights(cfg | dict(channel_multiplier=[1, 1]), channels=8, blocks=1))
        if method == "esrgan":
            return {"params_ema": dict(reference_rrdb.generator_weights())}
        w = Weights()
        features = reference_baselines.edsr(w, torch.zeros(1, 3, 2, 2), 1, 8)
        reference_baselines.liif(w, features, (2, 2), (16, 12))
        return {"model": {"name": "liif", "args": {}, "sd": dict(w)}}


@pytest.mark.parametrize("method", METHODS)
def test_published_checkpoints_become_models(method, tmp_path, picture, monkeypatch):
    """Files in each method's own format, with random weights; parity of the networks is tested beside each of them."""
    torch = pytest.importorskip("torch")
    file, extra = tmp_path / f"{method}.pth", ["--ckpt", str(tmp_path / f"{method}.pth"), f"--arch={method}"]
    torch.save(published(method), file)
    monkeypatch.setattr(program, "start_jax", lambda: None)
    assert program.run(main.dispatch, ["convert", *extra, f"--output={tmp_path / 'model'}"]) == 0
    model, options = aj.load(tmp_path / "model"), {"steps": 1} if method in baselines.DIFFUSION else {}
    found = aj.interop.load_baseline(file, method).upscale(picture, scale=1.5, **options)
    np.testing.assert_array_equal(model.upscale(picture, scale=1.5, **options), found)
    assert program.run(main.dispatch, ["convert", f"--model={tmp_path / 'model'}", f"--to-torch={file}.pt"]) == 2


def test_commands_take_these_models(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "start_jax", lambda: None)
    write(Path("in"), ["a.png"], height=40, width=40)

    def command(*argv):
        return program.run(main.dispatch, list(argv))

    model = f"--model={run}"
    assert command("upscale", model, "--input=in", "--scale=1.5", "--output=out") == 0
    assert pixels("out/a_x1.5.png").shape == (60, 60, 3)
    assert command("upscale", model, "--input=in", "--scale=1.5", "--output=out") == 0
    assert "1 there already" in capsys.readouterr().out
    measure = ["eval", "--task=upscale", "--data=in", "--scales=4", "--metrics=psnr,speed", "--output=table"]
    assert command(*measure, f"{model},bicubic") == 0
    assert "| liif " in Path("table/summary.md").read_text()
    for argv, message in (
        (["upscale", model, "--input=in", "--scale=2", "--steps=3"], "The method liif has no option steps"),
        (["generate", model, "--num=1"], "does not generate"),
        (["eval", "--task=generate", model, "--data=in"], "does not generate"),
    ):
        assert command(*argv, "--output=none") == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", ["photos", "faces", "div2k"])
def test_every_configuration_builds(method, data):
    config = config_flag.load(str(Path(__file__).parents[1] / "configs" / f"baselines_{method}_{data}.py"))
    assert config.stage == "baseline" and config.model.baseline.method == method
    if method != "esrgan":
        build_stage(config)  # ESRGAN's loads VGG's weights
