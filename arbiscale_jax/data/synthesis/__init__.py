"""Makes training examples on the accelerator, from pictures that stay in its memory.

`store` cuts pictures into tiles and `drawings` adds drawn ones; `damage` and `jpeg` degrade what is read of a tile;
`filters` resamples by matrix products; `pairs` reads pairs of an LR picture and its larger one; `examples` and `window`
make the batches; `configure` reads config.data.
"""

from .configure import from_config, store_from_config
from .damage import DamageRanges
from .examples import Settings, Variant, batches, make_batch, variant_of
from .pairs import read_pairs
from .store import PairStore, TileStore, make_store

__all__ = [
    "DamageRanges",
    "PairStore",
    "Settings",
    "TileStore",
    "Variant",
    "batches",
    "from_config",
    "make_batch",
    "make_store",
    "read_pairs",
    "store_from_config",
    "variant_of",
]
