"""Training: the loop's mechanics on a toy stage, then each real stage, chained, at toy size."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batches import first_batch
from conftest import train_on_one_device
from image_files import pixels
from ml_collections import ConfigDict
from recipes import tiny
from toys import leaves_equal, newest_state, toy_batches, toy_stage
from waiting import LIMIT

import arbiscale_jax as aj
from arbiscale_jax import data
from arbiscale_jax.artifacts import storage
from arbiscale_jax.artifacts.weights import load_weights, save_weights
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime import mesh, random
from arbiscale_jax.training import checkpoint, clock, due, history, loop, reporting, start, train
from arbiscale_jax.training.clock import Clock
from arbiscale_jax.training.optimizer import Optimizer, learning_rate, make_optimizer
from arbiscale_jax.training.stages import build_stage, stage
from arbiscale_jax.training.stages import reconstruction as first_stage_module
from arbiscale_jax.training.stages.latent import spread_times
from arbiscale_jax.training.state import create_state, update_ema
from arbiscale_jax.training.step import make_train_step, stream

ROOT = Path(__file__).resolve().parents[1]


# --- the loop, on a linear model with noise in its loss ---


def test_two_steps_and_two_resumed_ones_equal_four(toy, tmp_path):
    train(toy(4), tmp_path / "four")
    train(toy(2), tmp_path / "two")
    train(toy(4), tmp_path / "two")
    four, two = (newest_state(tmp_path / name, toy(4)) for name in ("four", "two"))
    assert int(four.step) == int(two.step) == 4
    assert leaves_equal(four, two)
    assert not leaves_equal(four.ema, four.params)


def test_training_time_adds_up_over_resumptions_and_ends_a_run(toy, tmp_path, capsys):
    train(toy(2), tmp_path)
    before = checkpoint.read_spent(tmp_path).trained
    train(toy(3), tmp_path)
    assert checkpoint.read_spent(tmp_path).trained > before > 0
    last = train(toy(100, minutes=1e-6), tmp_path)
    assert last["step"] == storage.newest_step(tmp_path) == 3
    said = capsys.readouterr().out
    assert "Ended by train.minutes=1e-06: 3 updates in" in said and "That is 3 % of train.steps=100" in said
    train(toy(100_000, minutes=1e-6, val_every=0), tmp_path / "short")
    assert storage.newest_step(tmp_path / "short") == 1


def test_metrics_samples_and_config_of_a_run(toy, tmp_path):
    last = train(toy(5, log_every=2, val_every=4, checkpoint_every=100), tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [2, 4, 5]
    assert {"step", "time", "loss", "noise", "grad_norm", "steps_per_s", "learning_rate"} == set(records[0])
    assert [r["step"] for r in records if "val/loss" in r] == [4, 5]
    assert records[-1] == last
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 5
    assert storage.read_config(tmp_path)["stage"] == "first_stage"
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["step_0000004.png", "step_0000005.png"]
    assert pixels(tmp_path / "samples/step_0000005.png").shape[:2] == (12, 8)
    assert np.array_equal(load_weights(tmp_path / "frozen.safetensors")["first_stage"]["encoder"]["b"], np.ones(3))


def test_resuming_drops_records_after_the_checkpoint(toy, tmp_path):
    train(toy(2), tmp_path)
    reporting.append_metrics(tmp_path, {"step": 3, "loss": float("nan")})
    assert reporting.read_metrics(tmp_path)[-1] == {"step": 3, "loss": None}
    train(toy(4), tmp_path)
    assert [r["step"] for r in reporting.read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_a_non_finite_loss_stops_the_run_and_is_not_saved(toy, tmp_path, monkeypatch):
    def poisoned(cfg, seed, batch_size, start_step=0, rows=None):
        for k, batch in enumerate(toy_batches(cfg, seed, batch_size)):
            yield {"image": batch["image"] * np.float32(np.nan if k == 2 else 1)}

    monkeypatch.setattr(data, "train_batches", poisoned)
    with pytest.raises(UserError, match="finite at step 3 .* last good checkpoint is step 2"):
        train(toy(10, log_every=5, checkpoint_every=2), tmp_path)
    assert storage.newest_step(tmp_path) == 2
    assert np.all(np.isfinite(storage.restore_params(tmp_path)["unet"]["w"]))


def test_an_interrupt_ends_with_a_checkpoint(toy, tmp_path, monkeypatch):
    def interrupting(cfg, seed, batch_size, start_step=0, rows=None):
        for k, batch in enumerate(toy_batches(cfg, seed, batch_size)):
            if k == 3:
                signal.raise_signal(signal.SIGINT)
            yield batch

    monkeypatch.setattr(data, "train_batches", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(toy(10, checkpoint_every=0, val_every=0), tmp_path)
    assert storage.newest_step(tmp_path) == 4
    last = reporting.read_metrics(tmp_path)[-1]
    assert last["step"] == 4 and not any(name.startswith("val/") for name in last)  # no time for a validation


def test_a_run_outlives_the_reader_of_its_output(toy, tmp_path):
    code = """
import pathlib, sys
from arbiscale_jax.runtime import progress
with progress.run_progress("run") as report:
    report.say("first")
    sys.stdin.readline()
    for _ in range(3):
        report.show(0.5, "nobody reads this")
    pathlib.Path(sys.argv[1]).write_text("saved")
"""
    path, env = tmp_path / "saved", os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    with subprocess.Popen([sys.executable, "-c", code, path], **pipes) as process:
        assert select.select([process.stdout], [], [], LIMIT)[0] and process.stdout.readline() == "first\n"
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(60) == 0, process.stderr.read()
    assert path.read_text() == "saved"


def test_no_ema_keeps_the_raw_weights(toy, tmp_path):
    train(toy(2, ema_decay=0.0), tmp_path)
    assert newest_state(tmp_path, toy(2, ema_decay=0.0)).ema == {}
    assert leaves_equal(storage.restore_params(tmp_path, ema=True), storage.restore_params(tmp_path, ema=False))
    with pytest.raises(UserError, match=r"started with train.ema_decay=0.0, and this call has 0.9999; resume it with"):
        train(toy(4), tmp_path)


def test_what_a_run_cannot_start_with(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/run cannot be written"):
        train(toy(1), tmp_path / "file" / "run")
    with pytest.raises(UserError, match="batch_size=3 must be a positive multiple of 2"):
        train(toy(1, batch_size=3), tmp_path / "run")
    with pytest.raises(UserError, match="There is no checkpoint in"):
        storage.restore_params(tmp_path)
    with pytest.raises(UserError, match="no config.json"):
        storage.read_config(tmp_path)
    config = toy(1).copy_and_resolve_references()
    config.stage = "decoder"
    with pytest.raises(UserError, match="stage is one of first_stage, diffusion, align, baseline, got 'decoder'"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("model.unet.model_channels", 8, "model.unet.model_channels=160, and this call has 8"),
        ("seed", 3, "seed=0, and this call has 3"),
        ("data.flip", False, "data.flip=True, and this call has False"),
        ("loss.kl_weight", 0.5, "loss.kl_weight=.*, and this call has 0.5"),
        ("train.batch_size", 8, "train.batch_size=4, and this call has 8"),
        ("stage", "diffusion", "stage='first_stage', and this call has 'diffusion'"),
    ],
)
def test_a_run_is_resumed_with_its_own_configuration(field, value, said, toy, tmp_path):
    history.record_start(tmp_path, toy(1).to_dict(), 0, {})
    config = toy(1).copy_and_resolve_references()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"was started with {said}; resume it with its own configuration"):
        history.check_resumable(tmp_path, config.to_dict())


def test_every_start_is_recorded_with_what_it_changed(toy, tmp_path, capsys):
    free = {"train.steps": 3, "train.minutes": 9.0, "train.log_every": 2, "data.workers": 5, "train.learning_rate": 0.2}
    train(toy(2), tmp_path)
    config = toy(2).copy_and_resolve_references()
    config.update_from_flattened_dict(free | {"model.sampling.steps": 7})
    train(config, tmp_path)
    first, second = history.read_starts(tmp_path)
    assert (first["step"], second["step"]) == (0, 2) and first["config"] == json.loads(json.dumps(toy(2).to_dict()))
    assert second["changed"]["train.steps"] == [2, 3] and second["changed"].keys() == {*free, "model.sampling.steps"}
    assert storage.read_config(tmp_path)["train"]["steps"] == 3
    assert "train.learning_rate is now 0.2; it was 0.1." in capsys.readouterr().out


def test_a_run_of_an_older_version_keeps_the_configuration_that_it_began_with(toy, tmp_path):
    old = toy(1).to_dict()
    del old["loss"]["disc_net"], old["data"]["synthesis"]  # fields that it did not know
    (tmp_path / storage.CONFIG).write_text(json.dumps(old))
    changed = history.check_resumable(tmp_path, toy(2).to_dict())
    assert set(changed) == {"train.steps"}
    history.record_start(tmp_path, toy(2).to_dict(), 1, changed)
    assert history.read_starts(tmp_path)[0] == {"step": 0, "config": json.loads(json.dumps(old))}


def test_what_is_due_after_a_step():
    cfg = ConfigDict({"steps": 10, "minutes": 2.0, "log_every": 2, "val_every": 4, "checkpoint_every": 0})
    assert due.what_is_due(cfg, 3, 0.3, False) == (False, False, False, False)
    assert due.what_is_due(cfg, 4, 0.4, False) == (True, True, False, False)
    assert due.what_is_due(cfg, 10, 1.0, False) == (True, True, True, True)
    assert due.what_is_due(cfg, 4, 0.4, True) == (True, False, True, True)  # a signal: no time for a validation
    assert due.what_is_due(cfg, 5, 1.0, True) == (True, True, True, True)
    assert due.share_done(cfg, 3, 0.0) == 0.3 and due.share_done(cfg, 3, 60.0) == 0.5
    assert due.describe_step(cfg, 3, 60.0, {"steps_per_s": 1.5, "loss": 0.25}) == (
        "1 of 2 min, step 3  1.50 steps/s  loss 0.25"
    )
    assert due.describe_step(cfg, 6, 60.0, {"steps_per_s": 1.5}).startswith("step 6 of 10  ")
    assert due.describe_end(cfg, 10, 60.0, 30.0).startswith("Complete: 10 updates in 1 min of training, besides")
    assert "That is 30 % of train.steps=10; the same command with more" in due.describe_end(cfg, 3, 120.0, 0.0)


def test_compilation_takes_nothing_of_the_training_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now[0]))
    timer = clock.Clock(clock.Spent(5.0, 2.0))
    now[0] += 3
    with timer.compiling():
        now[0] += 40
    now[0] += 1
    assert (timer.trained, timer.compiled) == (9.0, 42.0)


def test_the_newest_and_the_best_checkpoints_are_kept(tmp_path):
    tx = make_optimizer(0.1)
    state = create_state({"unet": {"w": jnp.zeros(3)}}, tx, 0.9)
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: None, 5: float("nan"), 6: 4.0}
    for steps in ((1, 2, 3, 4), (5, 6)):  # the best is known again after reopening
        with checkpoint.open_manager(tmp_path, keep=2) as manager:
            for step in steps:
                checkpoint.save(manager, state.replace(step=step), Clock(), losses[step])
                manager.wait_until_finished()
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 5, 6]
    assert storage.newest_step(tmp_path) == 6


# --- the step ---


def test_ema_equals_its_closed_form():
    ema, params, expected = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, 0.0
    for n in range(1, 60):
        ema = update_ema(ema, params, n, 0.8)
        decay = min(0.8, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay)
    np.testing.assert_allclose(ema["w"], expected, rtol=1e-5)
    assert ema["w"].dtype == jnp.float32


def test_warm_up_and_clipping():
    tx = make_optimizer(1.0, warmup_steps=4, grad_clip=0.5)
    params = {"w": jnp.zeros(2)}
    opt_state, sizes = tx.init(params), []
    for _ in range(6):
        updates, opt_state = tx.update({"w": jnp.array([30.0, 40.0])}, opt_state, params)
        sizes.append(-float(updates["w"][0]))
    np.testing.assert_allclose(sizes, [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-4)
    np.testing.assert_allclose(opt_state[1][0].mu["w"], np.array([0.3, 0.4]) * (1 - 0.9**6), rtol=1e-4)  # norm 0.5
    same = make_optimizer(0.1).init(params)
    assert jax.tree.structure(same) == jax.tree.structure(opt_state)


def test_two_devices_compute_what_one_does():
    toy, tx = toy_stage(None), optax.sgd(0.1)
    weights = toy.init(jax.random.key(0), None)
    results = []
    for devices in (jax.devices()[:1], jax.devices()[:2]):
        m = mesh.make_mesh(devices)
        params, frozen = (mesh.replicate(x, m) for x in start.split(weights, toy.trained))
        state = mesh.replicate(create_state(params, tx, 0.9), m)
        step = make_train_step(toy, Optimizer(tx, 0.9), stream(0, "train"), sharding=mesh.replicated(m))
        for _, batch in zip(range(3), toy_batches(None, 0, 4), strict=False):
            batch = mesh.shard_batch(batch, m)
            assert len(batch["image"].sharding.device_set) == len(devices)
            state, metrics = step(state, frozen, batch)
        assert state.params["unet"]["w"].sharding.is_fully_replicated
        results.append(jax.device_get((state.params, state.ema, metrics)))
    for one, two in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_a_batch_that_does_not_divide_is_replicated():
    batch = mesh.shard_batch({"image": np.ones((3, 2))}, mesh.make_mesh())
    assert batch["image"].sharding.is_fully_replicated


def test_streams_differ_by_name_and_seed():
    keys = [stream(0, "train"), stream(0, "val"), stream(1, "train")]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == 3


# --- losses and where weights come from ---


def test_kl_is_zero_at_the_standard_normal_and_sums_over_the_latent():
    zero, one = jnp.zeros((2, 3, 4, 5)), jnp.ones((2, 3, 4, 5))
    np.testing.assert_allclose(first_stage_module.kl_to_standard_normal(zero, zero), 0)
    np.testing.assert_allclose(first_stage_module.kl_to_standard_normal(one, zero), 0.5 * 60)


def test_seeds_of_any_size_give_keys_of_their_own():
    words = [0, 5, 2**32 - 1, np.int64(7)]
    for seed in words:
        assert random.seed_key(seed) == jax.random.key(seed) and random.word_seed(seed) == seed
    seeds = [5, 5 + 2**32, 5 + 2**33, 5 + 2**63, 5 + 2**64, 5 + 2**200, 2**32, 2**64, 10**40]
    keys = [tuple(jax.random.key_data(random.seed_key(seed)).tolist()) for seed in seeds]
    assert len(set(keys)) == len({random.word_seed(seed) for seed in seeds}) == len(seeds)
    assert all(word < 2**32 for word in map(random.word_seed, seeds)) and all(key[0] for key in keys[1:])
    assert keys[3] == tuple(jax.random.key_data(random.seed_key(np.uint64(5 + 2**63))).tolist())
    for wrong in (-1, -(2**70), 1.5, True, None, "7"):
        with pytest.raises(UserError, match="seed is a whole number >= 0, got"):
            random.seed_key(wrong)


def test_psnr_of_a_constant_error():
    np.testing.assert_allclose(stage.psnr(jnp.full((2, 4, 4, 3), 0.2), jnp.zeros((2, 4, 4, 3))), 20, rtol=1e-5)


def test_validation_times_cover_the_schedule():
    times = spread_times(8, 1000)
    assert times.min() < 20 and times.max() >= 980 and len(np.unique(times)) == times.size


def test_split_and_merge_are_inverse():
    tree = {"first_stage": {"encoder": {"a": 1}, "decoder": {"a": 2}}, "unet": {"a": 3}}
    inside, rest = start.split(tree, ("first_stage/decoder", "unet"))
    assert inside == {"first_stage": {"decoder": {"a": 2}}, "unet": {"a": 3}} and rest == {
        "first_stage": {"encoder": {"a": 1}}
    }
    assert storage.merge(rest, inside) == tree


@pytest.mark.parametrize(
    "config, workdir, message",
    [
        (
            tiny("diffusion"),
            "x_diffusion",
            "none in .*x_first_stage; train it there or set --config.first_stage=DIR",
        ),
        (tiny("align"), "x_align", "none in .*x_diffusion; train it there or set --config.init_from=DIR"),
        (tiny("diffusion"), "other", "does not end in _diffusion.*config.first_stage"),
        (tiny("align"), "other", "does not end in _align.*config.init_from"),
        (tiny("diffusion", first_stage="nowhere"), "x_diffusion", "nowhere is neither a training run"),
        (
            tiny("first_stage", **{"loss.freeze_encoder": True}),
            "x_first_stage",
            "freeze_encoder needs a trained encoder",
        ),
    ],
)
def test_a_missing_predecessor_is_named(config, workdir, message, tmp_path):
    with pytest.raises(UserError, match=message):
        start.given_weights(config.to_dict(), tmp_path / workdir, print)


def test_a_missing_predecessor_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "train_batches", pytest.fail)
    monkeypatch.setattr(loop.checkpoint, "open_manager", pytest.fail)
    with pytest.raises(UserError, match="none in .*x_diffusion"):
        train(tiny("align"), tmp_path / "x_align")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"loss.align_mode": "backwards"}, "align_mode is one of random_t, reverse_ddim, sampling, got 'backwards'"),
        ({"data.lr_size": 5}, "lr_size=5 times model.condition.upsampling=4.0 must be data.image_size=16"),
        ({"data.image_size": 17, "model.first_stage.ch_mult": (1, 2)}, "image_size=17 must be a multiple of 2"),
        ({"dtype": "float8"}, "dtype is one of float32, bfloat16"),
    ],
)
def test_what_a_stage_cannot_be_built_from(fields, message):
    with pytest.raises(UserError, match=message):
        build_stage(tiny("align", **fields))


# --- every real stage, chained ---


REVERSE = {"loss.align_mode": "reverse_ddim", "loss.align_steps": 2, "loss.align_t0": 600}


def plain_optimizer(cfg):
    """SGD, whose updates compile faster than Adam's."""
    return Optimizer(optax.sgd(cfg.learning_rate), cfg.ema_decay, learning_rate(cfg))


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Three runs of three steps on the embedded photographs: x_first_stage, x_diffusion, x_align."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        train_on_one_device(patch)
        patch.setattr(loop, "optimizer_from_config", plain_optimizer)
        fields = {"first_stage": {}, "diffusion": {}, "align": REVERSE}
        return folder, {name: train(tiny(name, **fields[name]), folder / f"x_{name}") for name in fields}


def test_every_stage_trains_and_validates(chain):
    folder, last = chain
    for name, record in last.items():
        assert record["step"] == 3 and all(np.isfinite(v) for v in record.values()), name
    assert pixels(folder / "x_first_stage/samples/step_0000003.png").shape[:2] == (2 * 16, 2 * 16)
    assert pixels(folder / "x_align/samples/step_0000003.png").shape[:2] == (2 * 16, 3 * 16)
    assert {"val/psnr", "val/recon", "val/dm"} < set(last["align"])


def test_stages_chain_by_their_averaged_weights_and_leave_frozen_ones_alone(chain):
    folder, _ = chain
    autoencoder = storage.restore_params(folder / "x_first_stage", ema=True)["first_stage"]
    assert set(autoencoder) == {"encoder", "decoder", "liif"}
    for name in ("x_diffusion", "x_align"):
        assert leaves_equal(storage.read_frozen(folder / name)["first_stage"], autoencoder)
        assert set(storage.restore_params(folder / name)) == {"unet"}
    scales = [storage.read_frozen(folder / name)["scale_factor"] for name in ("x_diffusion", "x_align")]
    assert scales[0] == scales[1] > 0 and scales[0].dtype == np.float32 and scales[0].shape == ()
    before, after = (storage.restore_params(folder / name)["unet"] for name in ("x_diffusion", "x_align"))
    assert not leaves_equal(before, after)


def test_the_scale_factor_is_one_over_the_std_of_the_first_latents(chain):
    config, frozen = tiny("diffusion"), storage.read_frozen(chain[0] / "x_diffusion")
    batch = first_batch(config.data, config.seed, config.train.batch_size)
    net = build_stage(config)
    scale = net.scale_factor({"first_stage": frozen["first_stage"]}, batch, stream(config.seed, "params"))
    np.testing.assert_allclose(frozen["scale_factor"], scale, rtol=1e-4)


def test_a_predecessor_of_another_architecture_is_refused(chain):
    config = tiny("align", **{"model.schedule.linear_end": 0.02})
    with pytest.raises(UserError, match="x_diffusion was trained with another model.schedule.linear_end"):
        start.given_weights(config.to_dict(), chain[0] / "x_align", print)


def test_a_run_has_the_umasks_modes_and_opens_with_its_own_config_alone(chain, tmp_path):
    mask = os.umask(0)
    os.umask(mask)
    for path in chain[0].rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask, path
    shutil.copytree(chain[0] / "x_first_stage", tmp_path / "run")
    config = storage.read_config(tmp_path / "run")
    config["model"]["liif"]["hidden"] = [16, 24]
    history.record_start(tmp_path / "run", config, 0, {})
    match = (
        r"Weight first_stage/liif/bias_1 of the newest checkpoint of .*run is \(16,\) where .*config.json needs \(24,\)"
    )
    for call in (aj.load, lambda run: aj.export(run, tmp_path / "out")):
        with pytest.raises(UserError, match=match):
            call(tmp_path / "run")
    assert not (tmp_path / "out").exists()
    del config["model"]["liif"]
    history.record_start(tmp_path / "run", config, 0, {})
    with pytest.raises(UserError, match="lacks the field model.liif, an object of fields"):
        start.check_fields(tmp_path / "run", config, ("unet",))
    with pytest.raises(UserError, match="lacks the field model.liif, an object of fields"):
        history.check_resumable(tmp_path / "run", tiny("first_stage").to_dict())


def test_init_from_takes_an_exported_folder_with_its_own_first_stage(chain, tmp_path):
    run = chain[0] / "x_diffusion"
    history.record_start(tmp_path, storage.read_config(run), 0, {})
    save_weights(tmp_path / storage.WEIGHTS, storage.read_weights(run))
    given = start.given_weights(tiny("diffusion", init_from=str(tmp_path)).to_dict(), tmp_path / "new", print)
    assert set(given) == {"unet", "first_stage", "scale_factor"}
    assert leaves_equal(given["unet"], storage.restore_params(run)["unet"])


def test_noise_on_latents_is_of_the_strength_that_is_asked_for():
    keys, z = jax.random.split(jax.random.key(0), 400), 3 * jax.random.normal(jax.random.key(1), (400, 4, 4, 2))
    noisy = first_stage_module.add_noise(keys, z, 0.5)
    strength = jnp.std(noisy - z, axis=(1, 2, 3)) / 3  # uniform from 0 to 0.5
    assert abs(jnp.mean(strength) - 0.25) < 0.02 and jnp.min(strength) < 0.03 and 0.4 < jnp.max(strength) < 0.7
    np.testing.assert_array_equal(first_stage_module.add_noise(keys[:3], z[:3], 0.0), z[:3])
    half = first_stage_module.add_noise(keys[:1], z, 0.5)[0] - z[0]  # example 0 has its own noise in any batch
    np.testing.assert_allclose(half, noisy[0] - z[0], atol=1e-5)


def test_a_decoder_learns_from_noisy_latents(chain):
    losses = {}
    batch = first_batch(tiny("first_stage").data, 0, 2)
    for noise in (0.0, 2.0):
        net = build_stage(tiny("first_stage", **{"loss.latent_noise": noise}))
        params, frozen = start.split(storage.read_weights(chain[0] / "x_first_stage"), net.trained)
        losses[noise] = float(net.loss_fn(params, frozen, batch, jax.random.key(0))[0])
        clean = net.eval_fn(params, frozen, batch, jax.random.key(0))[0]["loss"]  # validation sees no noise
        losses[f"eval {noise}"] = float(clean)
    assert losses[0.0] != losses[2.0] and losses["eval 0.0"] == losses["eval 2.0"]


def test_a_frozen_encoder_is_given_and_not_trained(chain, monkeypatch, tmp_path):
    config = tiny("first_stage", first_stage=str(chain[0] / "x_first_stage"), **{"loss.freeze_encoder": True})
    given = start.given_weights(config.to_dict(), chain[0] / "y_first_stage", print)
    assert set(given["first_stage"]) == {"encoder"}
    without = {"first_stage": {part: given["first_stage"]["encoder"] for part in ("decoder", "liif")}}
    monkeypatch.setattr(start, "read_weights", lambda path: without)
    for origin in ("first_stage", "init_from"):  # a random encoder is not frozen
        with pytest.raises(UserError, match="has no encoder"):
            start.given_weights({**config.to_dict(), "first_stage": "", origin: config.first_stage}, tmp_path, print)
    whole = storage.read_weights(chain[0] / "x_first_stage")
    net = build_stage(config)
    batch = first_batch(config.data, 0, 2)
    params, frozen = start.start_weights(net, whole, jax.random.key(0), batch)
    assert set(params["first_stage"]) == {"decoder", "liif"} and set(frozen["first_stage"]) == {"encoder"}
    shapes = jax.eval_shape(net.loss_fn, params, frozen, batch, jax.random.key(0))
    assert shapes[0].shape == ()


def test_the_diffusion_loss_overfits_one_batch(chain):
    config = tiny("diffusion")
    net, tree = build_stage(config), storage.read_weights(chain[0] / "x_diffusion")
    batch = first_batch(config.data, 0, 2)
    params, frozen = start.split(tree, net.trained)
    fixed = jax.random.key(3)  # t, eps and the posterior sample
    tx = make_optimizer(5e-3, grad_clip=1.0)
    same = net._replace(loss_fn=lambda p, f, b, key: net.loss_fn(p, f, b, fixed))
    step = make_train_step(same, Optimizer(tx), fixed)
    state = create_state(jax.tree.map(jnp.asarray, params), tx, 0.0)
    losses = []
    for _ in range(300):
        state, metrics = step(state, frozen, batch)
        losses.append(metrics["loss"])
    assert losses[-1] < 0.05 * losses[0], (losses[0], losses[-1])


def test_a_condition_that_is_off_may_differ_in_its_details(tmp_path):
    def check(enabled):
        theirs, ours = (
            tiny("align", **{"model.condition.enabled": enabled, "model.condition.interpolation": kind}).to_dict()
            for kind in ("nearest", "bilinear")
        )
        history.record_start(tmp_path, theirs, 0, {})
        start.check_fields(tmp_path, ours, ("condition",))

    check(False)
    with pytest.raises(UserError, match="another model.condition.interpolation"):
        check(True)
