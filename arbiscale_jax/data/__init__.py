"""Where images come from (sources), what is cut out of them (transforms), how the LR is made of it
(degradations), how they become batches (pipeline), and latents that are kept (latent_store)."""

from .pipeline import shuffled_batches, train_batches, val_batch, view_batches, views
from .records import is_prepared
from .sources import SOURCES, Source, make_source
from .transforms import dihedral, example, val_example

__all__ = [
    "SOURCES",
    "Source",
    "dihedral",
    "example",
    "is_prepared",
    "make_source",
    "shuffled_batches",
    "train_batches",
    "val_batch",
    "val_example",
    "view_batches",
    "views",
]
