"""ESRGAN's generator and discriminator again, in torch.nn.functional, for tests of arbiscale_jax.baselines.

As in reference_networks, names and shapes of the weights come from the forward pass. Each format names the layers in
the order of that pass, so weights drawn from one seed are the same numbers in every format.
"""

import torch
import torch.nn.functional as F
from reference_networks import Weights, up

BASICSR = ("conv_first", "body.{}.rdb{}.conv{}", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")
SECOND = ("conv_first", "RRDB_trunk.{}.RDB{}.conv{}", "trunk_conv", "upconv1", "upconv2", "HRconv", "conv_last")


def names_of(form, blocks):
    """The names of the first release depend on the number of blocks: they are numbers within nested containers."""
    first = ("model.0", "model.1.sub.{}.RDB{}.conv{}.0", f"model.1.sub.{blocks}", "model.3", "model.6", "model.8")
    return {"first": (*first, "model.10"), "second": SECOND, "basicsr": BASICSR}[form]


def leaky(x):
    return F.leaky_relu(x, 0.2)


def generator(w, x, blocks, features, growth, form="basicsr"):
    """Image [b 3 h w] in [0, 1] -> [b 3 4h 4w]."""
    first, dense, trunk, up_1, up_2, hr, last = names_of(form, blocks)
    x = w.conv(first, x, features)
    y = x
    for n in range(blocks):
        start = y
        for d in (1, 2, 3):
            seen = [y]
            for c in (1, 2, 3, 4):
                seen.append(leaky(w.conv(dense.format(n, d, c), torch.cat(seen, 1), growth)))
            y = y + 0.2 * w.conv(dense.format(n, d, 5), torch.cat(seen, 1), features)
        y = start + 0.2 * y
    x = x + w.conv(trunk, y, features)
    x = leaky(w.conv(up_1, up(x), features))
    x = leaky(w.conv(up_2, up(x), features))
    return w.conv(last, leaky(w.conv(hr, x, features)), 3)


@torch.no_grad()
def generator_weights(blocks=2, features=8, growth=4, form="basicsr", device="cpu"):
    w = Weights(device, seed=1)
    generator(w, torch.zeros(1, 3, 2, 2, device=device), blocks, features, growth, form)
    return w


def discriminator(w, x, ch, hidden):
    """Image [b 3 H W] in [-1, 1] -> logits [b], with GroupNorm of eight groups at most, and positions in NHWC order."""

    def bare(name, x, out, stride):
        kernel = 3 if stride == 1 else 4
        return F.conv2d(x, w.ask(f"{name}.weight", out, x.shape[1], kernel, kernel), stride=stride, padding=1)

    def norm(name, x):
        c = x.shape[1]
        return leaky(F.group_norm(x, min(8, c), w.ask(f"{name}.weight", c), w.ask(f"{name}.bias", c)))

    for i, mult in enumerate((1, 2, 4, 8, 8)):
        if i:
            x = norm(f"norm_{i}", bare(f"conv_{i}", x, mult * ch, 1))
        else:
            x = leaky(w.conv("conv_0", x, ch))
        x = norm(f"down_norm_{i}", bare(f"down_{i}", x, mult * ch, 2))
    x = leaky(w.linear("dense", x.permute(0, 2, 3, 1).flatten(1), hidden))
    return w.linear("dense_out", x, 1)[:, 0]
