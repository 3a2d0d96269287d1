"""Keeps D's features of a latent between the windows that are rendered from it."""

from dataclasses import dataclass
from typing import Any

import jax

from arbiscale_jax import models


@dataclass
class Kept:
    """Holds what rendering one view of a latent leaves for the next."""

    features: dict[Any, jax.Array]  # D's features by block, the one that was used last at the end
    most: int  # bytes of features that may be held while those of another block are computed
    moments: models.Statistics | None = None  # of D's norms over all blocks

    def make_room(self) -> None:
        """Forgets features, those that were used longest ago first, so that those of a block of their size fit."""
        while self.features and self.size() + max(one.nbytes for one in self.features.values()) > self.most:
            self.features.pop(next(iter(self.features)))

    def size(self) -> int:
        """Returns the bytes of the features."""
        return sum(one.nbytes for one in self.features.values())
