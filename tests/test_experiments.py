"""The configurations of the paper's experiments: full size by shape evaluation, two steps of each at toy size."""

import itertools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from image_files import write

from arbiscale_jax import data
from arbiscale_jax.artifacts import storage
from arbiscale_jax.cli import config_flag
from arbiscale_jax.errors import MissingPredecessor
from arbiscale_jax.experiments.paper import EXPERIMENTS, get_experiment_config, stages
from arbiscale_jax.training import start
from arbiscale_jax.training.optimizer import Optimizer
from arbiscale_jax.training.stages import build_stage
from arbiscale_jax.training.state import create_state
from arbiscale_jax.training.step import make_train_step

pytestmark = pytest.mark.usefixtures("one_device")
CONFIGS = [f"{name}_{stage}" for name in EXPERIMENTS for stage in stages(name)]
FACES = (22_622_720, 30_141_856, 232_195, 411_075_104)
LSUN_SR = (34_425_856, 44_306_848, 232_195, 411_075_104)
VQ_F4 = (22_337_423, 30_007_180, 232_195)
COUNTS = {  # E, D, LIIF, U-Net
    "ffhq": (*VQ_F4, 274_056_163),
    "lsun_bedroom": (*VQ_F4, 274_056_163),
    "lsun_church": (34_163_664, 44_176_788, 232_195, 294_966_916),
    "faces_sr": FACES,
    "lsun_bedroom_sr": LSUN_SR,
    "lsun_tower_sr": LSUN_SR,
    "div2k_sr": (*VQ_F4, 113_622_563),
    "df2k_sr": (*VQ_F4, 105_411_363),
}


def load(name):
    """Returns the configuration of the file configs/NAME.py, and the file's docstring."""
    path = Path(__file__).parent.parent / "configs" / f"{name}.py"
    return config_flag.load(str(path)), path.read_text().split('"""')[1]


def batch_shapes(config):
    """Returns what data.train_batches gives."""
    cfg, b = config.data, config.train.batch_size
    sides = {"image": cfg.image_size, "target": cfg.target_patch} | ({"lr": cfg.lr_size} if cfg.lr_size else {})
    shapes = {key: jax.ShapeDtypeStruct((b, side, side, 3), jnp.float32) for key, side in sides.items()}
    whole = {"target_size": (b,), "target_start": (b, 2)}
    return shapes | {key: jax.ShapeDtypeStruct(shape, jnp.int32) for key, shape in whole.items()}


def program_key(config):
    """Returns all that the compiled step depends on."""
    model = {**config.model.to_dict(), "sampling": None}
    return json.dumps([config.stage, model, config.loss.to_dict(), config.data.target_patch])


# Full size


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def full_size():
    """Returns full_size(config): the shapes of all networks' weights, evaluated once for each set of networks."""
    known = {}

    def evaluate(config):
        model = config.model.to_dict()
        key = json.dumps([model[part] for part in ("first_stage", "liif", "unet", "condition")])
        if key not in known:
            known[key] = jax.eval_shape(build_stage(config).init, jax.random.key(0), batch_shapes(config))
        return known[key]

    return evaluate


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_configuration_builds_at_full_size_with_the_published_counts(name, full_size):
    tree = full_size(load(f"{name}_diffusion")[0])
    paths = ("first_stage/encoder", "first_stage/decoder", "first_stage/liif", "unet")
    assert tuple(count(start.split(tree, (path,))[0]) for path in paths) == COUNTS[name]
    for stage in stages(name):
        config, text = load(f"{name}_{stage}")
        networks = tree if stage in ("diffusion", "align") else {"first_stage": tree["first_stage"]}
        params, frozen = start.split(networks, build_stage(config).trained)
        trained = {"decoder": COUNTS[name][1:3], "first_stage": COUNTS[name][:3]}.get(stage, COUNTS[name][3:])
        assert count(params) == sum(trained)
        assert f"{count(params):,} parameters trained, {count(frozen):,} frozen" in text
        assert f"TFLOP per step of {config.train.batch_size} images" in text
        assert f"python run_train.py --config configs/{name}_{stage}.py" in text


SETTINGS = {  # E's picture, LR, latent, schedule, rendered sizes in training
    "ffhq": (256, 0, (64, 64, 3), (0.0015, 0.0195), (64, 256)),
    "lsun_bedroom": (256, 0, (64, 64, 3), (0.0015, 0.0195), (64, 256)),
    "lsun_church": (256, 0, (32, 32, 4), (0.0015, 0.0155), (64, 256)),
    "faces_sr": (128, 16, (32, 32, 32), (0.0001, 0.015), (32, 128)),
    "lsun_bedroom_sr": (256, 16, (32, 32, 32), (0.0001, 0.015), (64, 256)),
    "lsun_tower_sr": (256, 16, (32, 32, 32), (0.0001, 0.015), (64, 256)),
    "div2k_sr": (192, 48, (48, 48, 3), (0.0015, 0.0155), (48, 192)),
    "df2k_sr": (192, 48, (48, 48, 3), (0.0015, 0.0155), (48, 192)),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_are_those_of_the_published_table(name):
    size, lr_size, latent, schedule, sizes = SETTINGS[name]
    first, diffusion, align = (load(f"{name}_{stage}")[0] for stage in stages(name))
    for config in (first, diffusion, align):
        side = size >> (len(config.model.first_stage.ch_mult) - 1)
        assert (config.data.image_size, (side, side, config.model.first_stage.z_channels)) == (size, latent)
        assert (config.model.schedule.linear_start, config.model.schedule.linear_end) == schedule
        assert config.model.condition.enabled == bool(lr_size) and config.model.sampling.size == size
        assert config.model.first_stage.double_z == (latent[2] != 3)
        assert config.loss.lambda_dm == config.loss.lambda_recon == 1 and config.model.sampling.steps == 200
        in_the_wild = name in ("div2k_sr", "df2k_sr")
        assert config.data.flip and config.data.transpose == in_the_wild != config.data.center_crop
    assert (first.data.target_min, first.data.target_max) == sizes
    assert (align.data.target_min, align.data.target_max) == (size, size)
    assert diffusion.data.lr_size == align.data.lr_size == lr_size
    assert not lr_size or diffusion.model.condition.upsampling * lr_size == size
    assert first.loss.freeze_encoder == (not lr_size) and first.train.batch_size == 8
    rate = 5e-6 if name in ("ffhq", "lsun_bedroom") else 5e-5
    assert [c.train.learning_rate for c in (first, diffusion, align)] == [rate, 1e-4, 1e-6]


def test_there_is_a_file_for_every_stage_and_no_other():
    files = {path.stem for path in (Path(__file__).parent.parent / "configs").glob("*.py")}
    assert {name for name in files if re.match("|".join(EXPERIMENTS), name)} == set(CONFIGS) and len(CONFIGS) == 24
    with pytest.raises(ValueError, match="The experiments are ffhq_decoder, .* got ffhq_first_stage"):
        get_experiment_config("ffhq", "first_stage")


# Toy size


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Returns a folder with every experiment's data set in its own layout."""
    root, hashes = tmp_path_factory.mktemp("data"), [f"{i:040x}" for i in range(5)]
    nested = ["/".join(name[-6:]) + f"/{name}.webp" for name in hashes]
    write(root, [f"ffhq/images1024x1024/00000/{i:05d}.png" for i in range(5)])
    write(root / "lsun", [f"bedroom_train/{name}" for name in nested] + [f"bedroom_val/{name}" for name in nested[:2]])
    write(root / "lsun", [f"churches/{name}.webp" for name in hashes])
    (root / "lsun" / "church_outdoor_train.txt").write_text("".join(f"{name}.webp\n" for name in hashes[:4]))
    (root / "lsun" / "church_outdoor_val.txt").write_text(f"{hashes[4]}.webp\n")
    write(root / "lsun", [f"tower_train/{name}.webp" for name in hashes])
    write(root / "DIV2K", [f"DIV2K_train_HR/{i:04d}.png" for i in range(1, 4)], height=32, width=40)
    write(root / "DIV2K", [f"DIV2K_valid_HR/{i:04d}.png" for i in range(801, 803)], height=32, width=40)
    write(root / "Flickr2K", [f"Flickr2K_HR/{i:06d}.png" for i in range(1, 4)], height=40, width=32)
    return root


def shrink(config, root):
    """Returns the configuration with two levels of one block, 8 x 8 latents and an LR of 4 x 4.

    Align adds the render to the step of diffusion, which runs each kind of latent, U-Net and schedule; here it has one
    kind, of one level.
    """
    config = config.copy_and_resolve_references()
    config.model.first_stage.update(z_channels=2, ch=8, ch_mult=(1, 2), num_res_blocks=1, resolution=16, num_groups=4)
    config.model.first_stage.update(attn_resolutions=(), mid_attention=False)
    config.model.liif.hidden = (8, 8)
    heads = {"num_heads": 2} if config.model.unet.num_heads else {"num_head_channels": 4}
    small = dict(model_channels=8, channel_mult=(1, 2), num_res_blocks=1, attention_rates=(), num_groups=4)
    config.model.unet.update(small | heads)
    if config.stage == "align":
        config.model.first_stage.update(double_z=False, ch_mult=(1,))
        config.model.unet.channel_mult = (1,)
        config.model.unet.update(num_heads=0, num_head_channels=4, scale_shift=False, resblock_updown=False)
        config.model.schedule.update(linear_start=0.0015, linear_end=0.0155)
    config.model.sampling.size = 16
    if config.model.condition.enabled:
        config.model.condition.upsampling = 4.0
    if config.data.lr_size:
        config.data.lr_size = 4
    patch = 16 * config.data.target_patch // config.data.image_size
    low = 16 * config.data.target_min // config.data.image_size
    config.data.update(root=str(root), image_size=16, target_min=low, target_max=16, target_patch=patch)
    config.data.update(workers=0, val_num=2)
    config.train.batch_size = 2
    return config


@pytest.fixture(scope="module")
def programs():
    """Returns programs(config, batch): a compiled step with its state and frozen weights, made once a program."""
    known = {}

    def make(config, batch):
        if (key := program_key(config)) not in known:
            stage, tx = build_stage(config), optax.sgd(0.1)  # less to compile than Adam
            rng = np.random.default_rng(0)
            tree = jax.tree.map(
                lambda x: (0.1 * rng.standard_normal(x.shape)).astype(x.dtype),
                jax.eval_shape(stage.init, jax.random.key(0), batch),
            )
            params, frozen = start.split(tree, stage.trained)
            if stage.scale_factor:
                frozen["scale_factor"] = np.float32(1)
            step = make_train_step(stage, Optimizer(tx), jax.random.key(1))
            lowered = step.lower(create_state(params, tx, 0.0), frozen, batch)
            known[key] = lowered.compile(), params, frozen, tx
        return known[key]

    yield make
    assert len(known) <= 10  # the tests' time


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_takes_two_steps_on_its_own_data(name, root, programs):
    config = shrink(load(name)[0], root)
    batches = data.train_batches(config.data, config.seed, config.train.batch_size)
    first, second = itertools.islice(batches, 2)
    batches.close()
    assert {key: x.shape for key, x in first.items()} == {k: x.shape for k, x in batch_shapes(config).items()}
    val = data.val_batch(config.data)
    assert val["image"].shape == (2, 16, 16, 3) and set(val) == set(first)
    step, params, frozen, tx = programs(config, first)
    state = create_state(params, tx, 0.0)
    losses = []
    for batch in (first, second):
        state, metrics = step(state, frozen, batch)
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 2 and np.isfinite(losses).all() and losses[0] != losses[1]
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: not np.array_equal(a, b), params, state.params))
    assert sum(moved) > 0.9 * len(moved)
    kept = {"decoder": ["encoder"], "first_stage": []}.get(name.rsplit("_", 1)[-1], ["decoder", "encoder", "liif"])
    kept = [] if name.endswith("first_stage") else kept
    assert sorted(frozen.get("first_stage", {})) == kept


# The chain of stages


def test_a_decoder_is_found_as_the_predecessor(tmp_path):
    def model(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / storage.WEIGHTS).touch()
        return tmp_path / name

    workdir = tmp_path / "ffhq_diffusion"
    said = "needs a trained first_stage or decoder, and there is none in .*ffhq_first_stage; train it .*first_stage=DIR"
    with pytest.raises(MissingPredecessor, match=said) as missing:
        start.need_predecessor("diffusion", workdir)
    assert missing.value.names == ("ffhq_first_stage", "ffhq_decoder")
    decoder = model("ffhq_decoder")
    assert start.need_predecessor("diffusion", workdir) == decoder
    first_stage = model("ffhq_first_stage")
    assert start.need_predecessor("diffusion", workdir) == first_stage
    assert start.predecessor("align", tmp_path / "ffhq_align") == workdir
    assert start.predecessor("diffusion", tmp_path / "elsewhere") is None
