"""Two CPU devices for every test, warnings as errors, and no program compiled twice in a session."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)


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
    """Models of one shape, made anew in several tests, find their compiled programs on disk."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
