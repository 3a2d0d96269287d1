"""Two CPU devices for every test, and warnings as errors."""

import jax

jax.config.update("jax_num_cpu_devices", 2)


def pytest_configure(config):
    for line in (
        "error",
        "ignore::DeprecationWarning",
        "ignore::ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ):
        config.addinivalue_line("filterwarnings", line)
