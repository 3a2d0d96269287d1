"""Defines EDSR (Lim et al. 2017) in its baseline size, as an encoder of features and with its own upsampling tail.

Images are in [-1, 1]. The original EDSR works on values up to 255 and subtracts the mean colour of DIV2K; LIIF switches
this mean shift off and works on (x - 0.5) / 0.5 instead, and so does this module. Weights that were trained with the
mean shift therefore do not fit. Axis letters: b is the batch, h and w are LR pixels, c channels, r a factor.
"""

from functools import partial

from flax import linen as nn

from arbiscale_jax.models.layers import conv3x3

SCALES = {2: (2,), 3: (3,), 4: (2, 2)}  # the scales of EDSR, and the factors of the sub-pixel convolutions of each
COLOURS = 3  # channels of a picture

# PyTorch's default, with which these networks were trained: without norms a larger variance grows from block to block
INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

_conv = partial(conv3x3, kernel_init=INIT)


def pixel_shuffle(x, r: int):
    """Rearranges channels into r x r pixels in the order of PyTorch: [b h w c*r*r] -> [b h*r w*r c].

    Channel (k r + i) r + j becomes channel k of the pixel (i, j) in a cell (Shi et al. 2016, 3.2).
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, c // (r * r), r, r).transpose(0, 1, 4, 2, 5, 3)  # b h r w r c
    return x.reshape(b, h * r, w * r, c // (r * r))


class EdsrBlock(nn.Module):
    """Applies a residual block of EDSR to x [b h w c]: convolution, ReLU, convolution (Lim et al. 2017, 3.1).

    The baseline adds the branch as it is (a residual scaling of 1), and there is no normalisation.
    """

    @nn.compact
    def __call__(self, x):  # b h w c
        c = x.shape[-1]
        return x + _conv(c, name="conv2")(nn.relu(_conv(c, name="conv1")(x)))


class EdsrEncoder(nn.Module):
    """Maps an image [b h w 3] in [-1, 1] to features [b h w channels], as LIIF uses EDSR (Lim et al. 2017, 3.2).

    It is EDSR without its tail: a convolution, residual blocks, a convolution, and a skip connection around the last
    two. The defaults are those of EDSR-baseline, 1.22 million parameters.
    """

    channels: int = 64  # channels of the features and of each residual block
    blocks: int = 16  # number of residual blocks

    @nn.compact
    def __call__(self, x):  # b h w 3
        first = x = _conv(self.channels, name="conv_in")(x)
        for i in range(self.blocks):
            x = EdsrBlock(name=f"block_{i}")(x)
        return first + _conv(self.channels, name="conv_out")(x)


class Edsr(nn.Module):
    """Enlarges an image [b h w 3] in [-1, 1] to [b h*scale w*scale 3], about [-1, 1] (Lim et al. 2017, Fig. 3).

    After the encoder the tail makes r x r pixels of each cell by a convolution to c r^2 channels and a rearrangement
    (sub-pixel convolution, Shi et al. 2016), twice with r = 2 for x4; a last convolution makes the colours.

    Raises:
      ValueError: if the scale is not one of SCALES.
    """

    scale: int = 2  # one of SCALES
    channels: int = 64  # channels of the features and of each residual block
    blocks: int = 16  # number of residual blocks

    @nn.compact
    def __call__(self, x):  # b h w 3
        if self.scale not in SCALES:
            raise ValueError(f"EDSR has the scales {', '.join(map(str, SCALES))}, got {self.scale}.")
        x = EdsrEncoder(self.channels, self.blocks, name="encoder")(x)
        for i, r in enumerate(SCALES[self.scale]):
            x = pixel_shuffle(_conv(self.channels * r * r, name=f"upsample_{i}")(x), r)
        return _conv(COLOURS, name="conv_out")(x)
