"""Opens sources of images and makes batches of training examples from them.

`sources` opens images, `transforms` cuts examples out of them, `degradations` makes their low-resolution (LR) images,
`lr_pairs` finds given ones, `pipeline` joins examples into batches, `latent_store` keeps encoded latents on disk, and
`synthesis` makes examples on the accelerator.
"""

from .folders import SplitFiles
from .name_labels import Name, labels_of, make_vocabulary, parse_name
from .pipeline import Batches, shuffled_batches, train_batches, val_batch, view_batches, views
from .records import RecordOptions
from .set_info import is_prepared
from .source import Source
from .sources import SOURCES, SourceOptions, make_source, open_source
from .transforms import ExampleSpec, dihedral, example, val_example

__all__ = [
    "SOURCES",
    "Batches",
    "ExampleSpec",
    "Name",
    "RecordOptions",
    "Source",
    "SourceOptions",
    "SplitFiles",
    "dihedral",
    "example",
    "is_prepared",
    "labels_of",
    "make_source",
    "make_vocabulary",
    "open_source",
    "parse_name",
    "shuffled_batches",
    "train_batches",
    "val_batch",
    "val_example",
    "view_batches",
    "views",
]
