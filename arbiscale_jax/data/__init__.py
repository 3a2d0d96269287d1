"""Where images come from (sources), what is cut out of them (transforms), how they become batches (pipeline)."""

from .pipeline import train_batches, val_batch
from .sources import SOURCES, Source, make_source
from .transforms import dihedral, example, val_example

__all__ = ["SOURCES", "Source", "dihedral", "example", "make_source", "train_batches", "val_batch", "val_example"]
