"""Defines LIIF (Chen et al. 2021), which enlarges an image to any size by a function of its features and a coordinate.

The renderer is `models.liif.Liif`, given features that are unfolded first: each cell sees its 3x3 neighbourhood. As in
the original, relative coordinates and the size of an output pixel are multiplied by (h, w), and a neighbour beyond the
border is the edge cell with the true relative coordinate to it. The original finds the neighbours by shifting rounded
coordinates by 1e-6 and clipping them; `models.axis` finds the same ones from integers. Axis letters: b is the batch, h
and w are LR pixels, which are the cells of the features, p and q output rows and columns, c channels.
"""

import jax.numpy as jnp
from flax import linen as nn

from arbiscale_jax.models import Axis, axis
from arbiscale_jax.models.liif import Liif

from .edsr import EdsrEncoder
from .rdn import RdnEncoder

ENCODERS = ("edsr", "rdn")
NEIGHBOURHOOD = 9  # cells of the 3x3 neighbourhood


def unfold(features):
    """Gives each cell the features of its 3x3 neighbourhood, zeros beyond the border: [b h w c] -> [b h w 9c].

    The order of the result's channels is that of torch.nn.functional.unfold: by channel, then by row and by column of
    the neighbourhood (Chen et al. 2021, Eq. 3).
    """
    b, h, w, c = features.shape
    padded = jnp.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return jnp.stack(shifted, axis=-1).reshape(b, h, w, NEIGHBOURHOOD * c)


class LiifSR(nn.Module):
    """Enlarges images to any size (Chen et al. 2021): an encoder of features and an MLP of ReLU layers.

    The MLP maps [9c unfolded features, relative coordinate, size of a pixel] to RGB (cell decoding, Eq. 5), and the
    answers of the four nearest cells are blended by the area of the opposite rectangle (local ensemble, Eq. 4). The
    parameters are in encoder/ and liif/. `points` is the definition; `features` and `render` compute the same fast on a
    regular grid.

    Raises:
      ValueError: if the encoder is unknown.
    """

    encoder_name: str = "edsr"  # one of ENCODERS
    channels: int = 64  # c, channels of the features
    blocks: int = 16  # residual blocks of the encoder
    convs: int = 8  # convolutions in each block of RDN; EDSR always has two
    growth: int = 64  # channels that each convolution of RDN adds; EDSR does not use it
    hidden: tuple[int, ...] = (256, 256, 256, 256)  # widths of the hidden layers of the MLP

    def setup(self):
        """Makes the encoder and the renderer."""
        if self.encoder_name not in ENCODERS:
            raise ValueError(f"The encoder of LIIF is one of {', '.join(ENCODERS)}, got {self.encoder_name!r}.")
        if self.encoder_name == "edsr":
            self.encoder = EdsrEncoder(self.channels, self.blocks)
        else:
            self.encoder = RdnEncoder(self.channels, self.blocks, self.convs, self.growth)
        self.liif = Liif(self.hidden, features=NEIGHBOURHOOD * self.channels)

    def features(self, lr):
        """Computes what `render` takes: encoded and unfolded features after the first layer of the MLP.

        Args:
          lr: images [b h w 3] in [-1, 1].

        Returns:
          float32 [b h w hidden[0]].
        """
        return self.liif.project(unfold(self.encoder(lr)))

    def render(self, features, rows: Axis, cols: Axis, *, products: bool = False):
        """Renders a window of p x q pixels of a regular grid.

        Args:
          features: what `features` returns, [b h w hidden[0]].
          rows: Axis of p pixels over the h cells, for all examples or with a leading batch axis; see `models.axis`.
          cols: the same for q pixels over the w cells.
          products: see `models.liif.select`; for training on an accelerator.

        Returns:
          float32 [b p q 3], about [-1, 1].
        """
        return self.liif.grid(features, rows, cols, products=products)

    def points(self, lr, y: Axis, x: Axis):
        """Renders single pixels coordinate by coordinate, which is the definition (Chen et al. 2021, Eq. 4).

        Args:
          lr: one image, [h w 3] in [-1, 1].
          y: Axis of p pixels over the h cells: the row of each pixel.
          x: Axis of the same p pixels over the w cells: the column of each.

        Returns:
          float32 [p 3], about [-1, 1].
        """
        return self.liif.points(unfold(self.encoder(lr[None]))[0], y, x)

    def __call__(self, lr, size: tuple[int, int]):
        """Enlarges whole images; use `features` once and `render` by windows where this needs too much memory.

        Args:
          lr: images [b h w 3] in [-1, 1].
          size: height and width of the result, each at least 1.

        Returns:
          float32 [b *size 3], about [-1, 1]. It is not clipped.
        """
        rows, cols = (axis(n, pixels) for n, pixels in zip(lr.shape[1:3], size, strict=True))
        return self.render(self.features(lr), rows, cols)
