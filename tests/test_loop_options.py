"""The loop's options: learning-rate schedules, cached latents, TensorBoard, profile, overview, and starts that fail."""

import errno
import json
import os
import struct
import threading
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from toys import leaves_equal, newest_state, tiny, toy_batches, toy_stage

from arbiscale_jax import data
from arbiscale_jax.artifacts import storage
from arbiscale_jax.data import latent_store
from arbiscale_jax.errors import UserError
from arbiscale_jax.runtime.progress import Report
from arbiscale_jax.training import cache, checkpoint, clock, history, loop, overview, reporting, stages, start, train
from arbiscale_jax.training.optimizer import LearningRate, learning_rate, make_optimizer
from arbiscale_jax.training.stages import denoising as diffusion
from arbiscale_jax.training.stages import latent, stage

REPORT = Report(lambda line: None, lambda share, line: None)


# --- the learning rate ---


def test_the_cosine_falls_from_the_peak_to_the_final_fraction():
    rate = LearningRate(0.2, schedule="cosine", final=0.1)
    shares = [0.0, 0.25, 0.5, 1.0, 1.3]
    expected = [0.2, 0.2 * (0.1 + 0.9 * (1 + np.sqrt(0.5)) / 2), 0.2 * 0.55, 0.02, 0.02]
    np.testing.assert_allclose([rate(10**6, u) for u in shares], expected, rtol=1e-5)
    assert LearningRate(0.2)(0, 0.7) == LearningRate(0.2)(99, 0.0) == np.float32(0.2)


def test_the_warm_up_multiplies_either_schedule():
    for schedule, fall in (("constant", 1.0), ("cosine", 0.5)):
        rate = LearningRate(1.0, 4, schedule)
        np.testing.assert_allclose([rate(k, 0.5) for k in range(6)], fall * np.array([0.25, 0.5, 0.75, 1, 1, 1]))


def test_the_optimizer_is_adam_at_that_rate_and_its_state_has_one_shape():
    params, grads = {"w": jnp.arange(3.0)}, {"w": jnp.array([3.0, -1.0, 0.5])}
    rate = LearningRate(0.1, 2, "cosine", 0.2)
    tx = make_optimizer(rate)
    shares = [0.0, 0.4, 0.9]
    peer = optax.chain(optax.clip_by_global_norm(1e9), optax.adam(lambda k: rate(k, jnp.array(shares)[k])))
    state, peer_state = tx.init(params), peer.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(peer_state)  # checkpoints of a plain Adam fit
    for share in shares:
        updates, state = tx.update(grads, state, params, share=np.float32(share))
        expected, peer_state = peer.update(grads, peer_state, params)
        np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-5)
    assert leaves_equal(state, peer_state)


def rates(run_dir):
    return [r["learning_rate"] for r in reporting.read_metrics(run_dir)]


def test_a_run_by_steps_follows_its_schedule_and_resumes_bit_for_bit(toy, tmp_path):
    cosine = dict(schedule="cosine", final_lr=0.1, warmup_steps=2, val_every=0)
    train(toy(4, **cosine), tmp_path / "four")
    expected = [float(learning_rate(toy(4, **cosine).train)(k, np.float32(k / 4))) for k in range(4)]
    np.testing.assert_allclose(rates(tmp_path / "four"), expected, rtol=1e-6)
    assert expected[0] == pytest.approx(0.05) and expected[3] < 0.03

    def stopping(cfg, seed, batch_size, start_step=0, rows=None):
        for k, batch in enumerate(toy_batches(cfg, seed, batch_size, start_step)):
            if start_step == 0 and k == 2:
                raise OSError("the machine goes away")
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "train_batches", stopping)
        with pytest.raises(OSError, match="goes away"):
            train(toy(4, **cosine), tmp_path / "two")
        assert storage.newest_step(tmp_path / "two") == 2
        train(toy(4, **cosine), tmp_path / "two")
    assert leaves_equal(*(newest_state(tmp_path / name, toy(4)) for name in ("four", "two")))
    train(toy(6), tmp_path / "two")  # with another schedule
    assert rates(tmp_path / "two")[-2:] == [np.float32(0.1)] * 2


def test_the_logged_rate_is_the_optimizers_along_a_path_too(toy, tmp_path, monkeypatch):
    def with_path(config):
        def loss_fn(params, frozen, batch, key, point, i, disc=None):
            loss, metrics = plain.loss_fn(params, frozen, batch, key)
            return loss, (metrics, point)

        def begin(params, frozen, batch, key):
            return {"x": batch["image"]}

        plain = toy_stage(config)
        return plain._replace(path=stage.UpdatePath(3, begin, loss_fn))

    monkeypatch.setitem(stages.STAGES, "first_stage", with_path)
    config = toy(2, warmup_steps=6, val_every=0)
    train(config, tmp_path)
    np.testing.assert_allclose(rates(tmp_path), [0.1 * (1 + 2 + 3) / 18, 0.1 * (4 + 5 + 6) / 18], rtol=1e-6)
    assert int(newest_state(tmp_path, config).opt_state[1][1].count) == 6


def test_a_run_by_the_clock_ends_at_the_schedules_end(toy, tmp_path, monkeypatch):
    now = [0.0]

    def tick():
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=tick))
    fields = dict(minutes=1.0, schedule="cosine", val_every=0, checkpoint_every=0, learning_rate=1e-3)
    last = train(toy(100_000, **fields), tmp_path)
    found = rates(tmp_path)
    assert 10 < last["step"] < 60 and found == sorted(found, reverse=True)
    assert found[0] == np.float32(1e-3) and found[-1] < 3e-5


# --- cached latents ---


@pytest.fixture(scope="module")
def weights():
    """The stage's frozen weights, at random."""
    config = tiny("diffusion")
    net = latent.build_nets(config).first_stage
    first = jax.jit(lambda key, x: stage.init_first_stage(net, key, {"image": x}))(
        jax.random.key(1), jnp.zeros((1, 16, 16, 3))
    )
    return {"first_stage": first, "scale_factor": jnp.float32(0.7)}


def cached(tmp_path, **fields):
    return tiny("diffusion", **{"data.latent_cache": str(tmp_path), "data.latent_cache_views": 2} | fields)


def build(config, weights, n=1, start_step=0):
    """Returns the first n cached batches and the store's folder."""
    batches = cache.cached_batches(config, weights, start_step, None, REPORT)
    taken = [next(batches) for _ in range(n)]
    batches.close()
    (folder,) = {p.parent for p in latent_store.Path(config.data.latent_cache).glob("*/progress.json")}
    return taken, folder


@pytest.fixture(scope="module")
def store(tmp_path_factory, weights):
    """A config with its finished cache: two views of the eleven embedded photographs, SR with a posterior."""
    config = cached(tmp_path_factory.mktemp("latents"))
    return config, *build(config, weights, n=8)


def test_cached_latents_equal_fresh_ones(store, weights):
    config, _, folder = store
    reader, nets = latent_store.Reader(folder), latent.build_nets(config)
    examples, _ = data.views(config.data, config.seed, 2)
    assert len(reader) == len(examples) == 22
    picked = [0, 5, 11, 21]
    assert not np.array_equal(examples[0]["image"], examples[11]["image"])  # two views of one photograph
    fresh = {k: np.stack([examples[i][k] for i in picked]) for k in ("image", "lr")}
    kept = {k: np.stack([reader[i][k] for i in picked]) for k in ("moments", "condition")}
    assert kept["moments"].shape == (4, 8, 8, 4) and kept["moments"].dtype == np.float32
    key = jax.random.key(2)
    for function in (latent.encode, lambda nets, frozen, batch, key: latent.condition(nets, frozen, batch)):
        a, b = (jax.jit(partial(function, nets))(weights, batch, key) for batch in (fresh, kept))
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert np.std(a) > 0.01


def test_the_loss_takes_either_kind_of_batch(store, weights, monkeypatch):
    config, _, folder = store
    unet = SimpleNamespace(apply=lambda params, z_t, t, c, *args, **options: 0.5 * z_t + c)
    nets = latent.build_nets(config)._replace(unet=unet)
    monkeypatch.setattr(latent, "build_nets", lambda config: nets)
    examples, _ = data.views(config.data, config.seed, 2)
    reader, key = latent_store.Reader(folder), jax.random.key(3)
    batch, kept_batch = ({k: np.stack([x[i][k] for i in range(4)]) for k in x[0]} for x in (examples, reader))
    loss_fn = jax.jit(diffusion.make_stage(config).loss_fn)
    fresh, kept = (loss_fn({"unet": {}}, weights, x, key)[0] for x in (batch, kept_batch))
    np.testing.assert_allclose(fresh, kept, rtol=1e-5)
    values = {}
    for gamma in (1e9, 0.1):
        weighted = config.copy_and_resolve_references().unlock()
        weighted.loss.min_snr_gamma = gamma
        values[gamma], metrics = jax.jit(diffusion.make_stage(weighted).loss_fn)({"unet": {}}, weights, batch, key)
        np.testing.assert_allclose(metrics["dm"], fresh, rtol=1e-5)  # the metric is L_dm whatever the weights
    np.testing.assert_allclose(values[1e9], fresh, rtol=1e-5)
    assert 0 < values[0.1] < 0.9 * fresh


def test_cached_batches_are_shuffled_rounds_of_the_examples(store, weights):
    config, taken, folder = store
    reader = latent_store.Reader(folder)
    known = [one["moments"].tobytes() for one in (reader[i] for i in range(22))]
    seen = [known.index(one.tobytes()) for batch in taken for one in batch["moments"]]
    assert len(taken[0]["moments"]) == 4 and len(set(seen)) > 10 and seen != sorted(seen)
    again, _ = build(config, weights, start_step=5)
    np.testing.assert_array_equal(again[0]["moments"], taken[5]["moments"])


def test_an_interrupted_build_goes_on_and_a_finished_one_is_not_repeated(store, weights, tmp_path, monkeypatch):
    encoded, view_batches = [], data.view_batches

    def breaking(examples, batch_size, first, workers):
        with closing(view_batches(examples, batch_size, first, workers)) as batches:
            for k, batch in enumerate(batches):
                if first == 0 and k == 3:
                    raise KeyboardInterrupt
                encoded.append(len(batch["image"]))
                yield batch

    monkeypatch.setattr(data, "view_batches", breaking)
    monkeypatch.setattr(cache, "_SECONDS", 0.0)
    config = cached(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.cached_batches(config, weights, 0, None, REPORT)
    (folder,) = tmp_path.iterdir()
    assert latent_store.finished(folder) == 12 and encoded == [4, 4, 4]
    assert build(config, weights)[1] == folder and encoded == [4, 4, 4, 4, 4, 2]
    for path in store[2].glob("*.npy"):
        np.testing.assert_array_equal(np.load(folder / path.name), np.load(path))
    build(config, weights)
    assert len(encoded) == 6


def test_other_weights_or_data_are_another_store(store, weights, tmp_path):
    def folder(tree=weights, **fields):
        config = cached(tmp_path, **fields)
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache, "_build", lambda config, folder, *rest: seen.append(folder))
            with pytest.raises(UserError, match="holds no latents"):
                cache.cached_batches(config, tree, 0, None, REPORT)
        return seen[0].name

    other = jax.tree.map(lambda x: x, weights)
    other["first_stage"]["encoder"] = jax.tree.map(lambda x: x + 1e-6, weights["first_stage"]["encoder"])
    assert folder() == store[2].name
    assert folder(**{"train.batch_size": 2, "train.steps": 7, "data.workers": 3, "data.val_num": 5}) == store[2].name
    changed = [folder(other), folder(seed=1), folder(dtype="bfloat16"), folder(**{"data.degradation": "real"})]
    changed += [folder(**{"data.min_crop": 0.5}), folder(**{"model.condition.interpolation": "nearest"})]
    assert len({store[2].name, *changed}) == 7
    assert json.loads((store[2] / latent_store.IDENTITY).read_text())["data"]["images"][0] == "astronaut"


def test_another_picture_under_the_same_name_is_another_store(tmp_path):
    config = tiny("diffusion", **{"data.source": "folder", "data.root": str(tmp_path)}).data

    def identity_of(color, ticks):
        for name in "abc":
            path = tmp_path / f"{name}.bmp"
            Image.new("RGB", (40, 40), color).save(path)  # as many bytes, whatever it shows
            os.utime(path, ns=(ticks, ticks))
        return data.views(config, 0, 1)[1]

    before = identity_of((9, 9, 9), 10**18)
    assert before == data.views(config, 0, 1)[1]
    assert before != identity_of((90, 9, 9), 10**18 + 1000)


def test_a_second_process_waits_for_the_first_one_s_cache(tmp_path):
    waiting, order = threading.Event(), []

    def second():
        with latent_store.alone(tmp_path, waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with latent_store.alone(tmp_path, lambda: order.append("waited for nobody")):
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


class Watched:
    """Batches that remember whether they were closed."""

    def __init__(self, batches):
        self.batches, self.closed = batches, False

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.batches)

    def close(self):
        self.closed = True
        self.batches.close()


@pytest.fixture
def watched(monkeypatch):
    """Returns the batches that are started during the test, by the name of the function."""
    started = {}
    for name in ("train_batches", "view_batches", "shuffled_batches"):
        actual = getattr(data, name)

        def start(*args, name=name, actual=actual):
            started[name] = Watched(actual(*args))
            return started[name]

        monkeypatch.setattr(data, name, start)
    return started


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_trains_on_its_cache_and_closes_all_loaders(weights, tmp_path, monkeypatch, watched, fails):
    def make_stage(config):
        def loss_fn(params, frozen, batch, key):
            assert set(batch) >= {"moments", "condition"} and "image" not in batch
            loss = jnp.mean((batch["moments"][..., :2] * params["unet"]["w"] - batch["condition"]) ** 2)
            return loss, {}

        def init(key, batch):
            assert "image" in batch
            return {"unet": {"w": jnp.ones(())}, "first_stage": weights["first_stage"]}

        def eval_fn(params, frozen, batch, key):
            return {"loss": params["unet"]["w"] ** 2}, batch["image"][:, None]

        return stage.Stage(init, ("unet",), loss_fn, eval_fn, lambda *args: jnp.float32(1))

    monkeypatch.setitem(stages.STAGES, "diffusion", make_stage)
    given = {"first_stage": jax.device_get(weights["first_stage"])}
    monkeypatch.setattr(start, "given_weights", lambda *args: given)
    config = cached(tmp_path / "cache", **{"train.log_every": 1})
    if fails:  # after the cache is begun
        monkeypatch.setattr(loop, "make_programs", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError) as error:  # keeps the frames, and what they hold, alive
            train(config, tmp_path / "run")
        assert error.traceback
    else:
        assert train(config, tmp_path / "run")["step"] == 3
        assert len(reporting.read_metrics(tmp_path / "run")) == 3
    assert len(list((tmp_path / "cache").glob("*/moments.npy"))) == 1
    assert {name: one.closed for name, one in watched.items()} == {
        "train_batches": True,
        "view_batches": True,
        "shuffled_batches": True,
    }


def test_a_cache_without_room_is_refused(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(latent_store.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="latents need .* GB and .* has 0.0 GB left"):
        cache.cached_batches(cached(tmp_path), weights, 0, None, REPORT)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="latent_cache=.*file cannot be written"):
        cache.cached_batches(cached(tmp_path / "file"), weights, 0, None, REPORT)


def test_a_store_that_cannot_be_locked_is_told_and_closed(tmp_path, monkeypatch):
    def take(file, wait=False):
        taken.append(file)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    taken = []
    monkeypatch.setattr(latent_store.locks, "take", take)
    with pytest.raises(UserError, match="latent_cache=.* cannot be written .Input/output error"):
        with latent_store.alone(tmp_path / "store", lambda: None):
            pass
    assert taken[0].closed


# --- TensorBoard, profile, overview ---


def read_events(folder):
    """Reads TensorBoard's files: records of length (8 bytes), its checksum (4), an event, its checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        raw, at = path.read_bytes(), 0
        while at < len(raw):
            (size,) = struct.unpack_from("<Q", raw, at)
            events.append(Event.FromString(raw[at + 12 : at + 12 + size]))
            at += 16 + size
    return events


def test_tensorboard_gets_the_metrics_and_the_pictures(toy, tmp_path):
    pytest.importorskip("tensorboardX")
    train(toy(3, tensorboard=True, val_every=2), tmp_path)
    values = [(e.step, v) for e in read_events(tmp_path / "tensorboard") for v in e.summary.value]
    scalars = {(step, v.tag): v.simple_value for step, v in values if v.HasField("simple_value")}
    records = {r["step"]: r for r in reporting.read_metrics(tmp_path)}
    assert {tag for step, tag in scalars if step == 2} == records[2].keys() - {"step", "time"}
    assert {tag for step, tag in scalars if step == 1} >= {"loss", "learning_rate", "steps_per_s"}
    for (step, tag), value in scalars.items():
        np.testing.assert_allclose(value, records[step][tag], rtol=1e-6)
    pictures = {step: (v.image.height, v.image.width) for step, v in values if v.HasField("image")}
    assert pictures == {2: (12, 8), 3: (12, 8)}
    train(toy(4, tensorboard=True), tmp_path)
    assert max(e.step for e in read_events(tmp_path / "tensorboard")) == 4


def test_tensorboard_that_is_not_installed_is_named(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="tensorboardX; install the extra 'tensorboard'"):
        train(toy(1, tensorboard=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("first, num, last, expected", [(2, 2, 5, [2, 4]), (3, 9, 4, [3, None]), (2, 0, 4, [])])
def test_the_trace_spans_the_steps_that_were_asked_for(first, num, last, expected, tmp_path, monkeypatch):
    at, calls = [None], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(at[0]))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append(at[0]))
    with overview.tracer(tmp_path, first, num) as on_step:
        for at[0] in range(1, last + 1):
            on_step(at[0], {})
        at[0] = None  # a trace that the run's end cuts off
    assert calls == expected


def test_a_run_writes_a_trace_and_an_overview(toy, tmp_path, capsys):
    train(toy(4, profile_start=2, profile_steps=2, val_every=0), tmp_path)
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000
    text = (tmp_path / "overview.txt").read_text()
    for line in (
        "first_stage/encoder              3 parameters, frozen",
        "unet/w | (3,)",
        "first_stage/encoder/b | (3,)",
    ):
        assert line in text
    assert "3 parameters, trained" in capsys.readouterr().out


def test_flops_are_those_of_a_matrix_product():
    a, b = jnp.ones((8, 16)), jnp.ones((16, 32))
    assert overview.flops(jax.jit(jnp.matmul).lower(a, b).compile()) == 2 * 8 * 16 * 32
    silent = SimpleNamespace(cost_analysis=lambda: None)
    text = overview.describe({"unet": {"w": a, "b": b}}, {"first_stage": {"encoder": {"w": b}}}, silent, 1)
    assert text.splitlines() == [
        "first_stage/encoder            512 parameters, frozen",
        "unet                           640 parameters, trained",
        "This backend does not count the FLOPs per step.",
    ]


# --- starts that fail ---


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(schedule="linear"), "train.schedule is one of constant, cosine, got 'linear'"),
        (dict(final_lr=2.0), "train.final_lr is a fraction"),
        (dict(log_every=0), "train.log_every must be at least 1, got 0"),
        (dict(learning_rate=float("nan")), "train.learning_rate must be at least 0, got nan"),
        (dict(ema_decay=1.0), "train.ema_decay must be below 1"),
        (dict(profile_start=0), "profile_start >= 1 and train.profile_steps >= 0 must hold, got 0 and 0"),
    ],
)
def test_wrong_fields_are_named(toy, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        train(toy(2, **fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("align", {"data.latent_cache": "x"}, "latent_cache serves stage diffusion, and stage align needs the images"),
        ("diffusion", {"data.latent_cache_views": 0}, "latent_cache_views must be at least 1, got 0"),
    ],
)
def test_a_cache_that_cannot_serve_is_named(name, fields, message):
    with pytest.raises(UserError, match=message):
        cache.check(tiny(name, **fields))


def test_a_run_that_fails_before_its_first_step_leaves_nothing_behind(tmp_path):
    missing = tiny("first_stage", **{"data.source": "folder", "data.root": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match="nowhere does not exist"):
        train(missing, tmp_path / "runs" / "a" / "run")
    assert list(tmp_path.iterdir()) == []
    own = tmp_path / "run_diffusion"
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="Stage diffusion needs a trained first_stage"):
        train(tiny("diffusion"), own)
    assert [p.name for p in own.iterdir()] == ["notes.txt"]


def test_a_failing_first_step_leaves_nothing_behind_but_a_run_keeps_what_it_has(toy, tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("out of memory")

    train(toy(2), tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    monkeypatch.setattr(loop, "make_programs", lambda *args: lambda *args: broken)
    for name in ("run", "fresh"):
        with pytest.raises(RuntimeError, match="out of memory"):
            train(toy(4, profile_start=1, profile_steps=1), tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    after = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert before.keys() == after.keys()
    assert {p.name for p in before if before[p] != after[p]} <= {storage.CONFIG, history.STARTS}


def test_another_runs_checkpoint_is_never_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with checkpoint.provisional(tmp_path / "run", (storage.CONFIG, storage.CHECKPOINTS)):
            (tmp_path / "run" / storage.CHECKPOINTS / "7").mkdir(parents=True)  # of a process that came in between
            raise KeyboardInterrupt
    assert storage.newest_step(tmp_path / "run") == 7
