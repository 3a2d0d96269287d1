"""Two CPU devices for every test, warnings as errors, quick compilation, and no program compiled twice in a session."""

import os

import jax
import jax.numpy as jnp
import pytest

from arbiscale_jax import perceptual
from arbiscale_jax.training import loop, stage
from arbiscale_jax.training.mesh import make_mesh

if jax.__version__.startswith("0.10."):  # an unknown flag ends the process, and another version may not know it
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_disable_most_optimizations", True)  # most of the time is compilation


def pytest_configure(config):
    for line in (
        "error",
        "ignore::DeprecationWarning",
        "ignore::ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ):
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Models of one shape, made anew in several tests, find their compiled programs on disk, in any process."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def train_on_one_device(patch: pytest.MonkeyPatch) -> None:
    """Makes training loops use one device: a program for several takes twice as long to compile."""
    patch.setattr(loop, "make_mesh", lambda fsdp: make_mesh(jax.devices()[:1], fsdp))


@pytest.fixture
def one_device(monkeypatch):
    train_on_one_device(monkeypatch)


@pytest.fixture
def tiny_lpips(monkeypatch):
    """Stands for AlexNet's weights with random ones of four channels, so that the package is not needed."""
    kernels = zip(jax.random.split(jax.random.key(1), 5), (11, 5, 3, 3, 3), (3, 4, 4, 4, 4))
    convs = tuple((jax.random.normal(key, (k, k, c, 4)) / k, jnp.zeros(4)) for key, k, c in kernels)
    weights = perceptual.Lpips("alex", convs, tuple(jnp.ones(4) for _ in range(5)))
    monkeypatch.setattr(stage, "load_lpips", lambda net: weights)
    return weights
