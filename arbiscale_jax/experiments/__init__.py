"""Builds families of configurations, to which the files in configs/ give names.

The module base has every field with its default, paper the published experiments, quickstart small models that train in
minutes on two CPU cores, bundled the first recipes of the bundled models, restoring the model for real photographs,
labelled a generator that follows prompts, and comparisons the methods with which the paper compares and its own at
their budget.
"""

from .base import get_base_config
from .bundled import get_bundled_config
from .comparisons import get_compared_config, get_comparison_config
from .labelled import get_labelled_config
from .paper import get_experiment_config
from .quickstart import get_quickstart_config
from .restoring import get_restoring_config

__all__ = [
    "get_base_config",
    "get_bundled_config",
    "get_compared_config",
    "get_comparison_config",
    "get_experiment_config",
    "get_labelled_config",
    "get_quickstart_config",
    "get_restoring_config",
]
