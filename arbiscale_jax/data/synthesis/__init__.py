"""Training examples made on the accelerator: tiles in its memory (store, drawings), their damage (damage, jpeg),
resampling by filter matrices (filters), pairs as given (pairs), and what becomes of them (examples, window; configure
reads config.data)."""

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
