"""EDSR, RDN and LIIF again, in torch.nn.functional, for tests of arbiscale_jax.baselines.

Names and shapes of the weights are those of LIIF's published files. As in reference_networks they come from the forward
pass, which draws a tensor the first time it asks for it.
"""

import torch
import torch.nn.functional as F


def edsr(w, x, blocks, channels, name="encoder."):
    """Image [b 3 h w] -> features [b channels h w]."""
    first = x = w.conv(f"{name}head.0", x, channels)
    for i in range(blocks):
        inner = F.relu(w.conv(f"{name}body.{i}.body.0", x, channels))
        x = w.conv(f"{name}body.{i}.body.2", inner, channels) + x
    return w.conv(f"{name}body.{blocks}", x, channels) + first


def edsr_tail(w, x, scale, name="tail."):
    """Features [b c h w] -> image [b 3 h*scale w*scale]."""
    channels, r = x.shape[1], 3 if scale == 3 else 2
    for i in range(2 if scale == 4 else 1):
        x = F.pixel_shuffle(w.conv(f"{name}0.{2 * i}", x, r * r * channels), r)
    return w.conv(f"{name}1", x, 3)


def mean_shift(name="encoder."):
    """What EDSR's files hold and LIIF does not use."""
    bias = torch.tensor([0.4488, 0.4371, 0.4040])
    out = {}
    for side, sign in (("sub", -1), ("add", 1)):
        out |= {f"{name}{side}_mean.weight": torch.eye(3)[..., None, None], f"{name}{side}_mean.bias": sign * bias}
    return out


def rdn(w, x, blocks, channels, convs, growth, name="encoder."):
    """Image [b 3 h w] -> features [b channels h w]."""
    first = w.conv(f"{name}SFENet1", x, channels)
    x, every = w.conv(f"{name}SFENet2", first, channels), []
    for i in range(blocks):
        dense = x
        for j in range(convs):
            dense = torch.cat([dense, F.relu(w.conv(f"{name}RDBs.{i}.convs.{j}.conv.0", dense, growth))], 1)
        x = w.conv(f"{name}RDBs.{i}.LFF", dense, channels, 1, padding=0) + x
        every.append(x)
    fused = w.conv(f"{name}GFF.0", torch.cat(every, 1), channels, 1, padding=0)
    return w.conv(f"{name}GFF.1", fused, channels) + first


def centres(n):
    """Centres of n cells over [-1, 1], rounded as the original rounds them."""
    return (-1 + 1 / n) + (2 / n) * torch.arange(n).float()


def grid(h, w):
    return torch.stack(torch.meshgrid(centres(h), centres(w), indexing="ij"), -1)  # h w 2


def sample(maps, coord):
    """Maps [b c h w] and coordinates [b q 2] -> the values of the nearest cells, [b q c]."""
    return F.grid_sample(maps, coord.flip(-1)[:, None], "nearest", align_corners=False)[:, :, 0].mT


def query(w, feat, coord, cell, hidden):
    """Features [b c h w], coordinates [b q 2] over [-1, 1] and the size of a pixel [b q 2] -> RGB [b q 3]."""
    b, c, height, width = feat.shape
    unfolded = F.unfold(feat, 3, padding=1).reshape(b, 9 * c, height, width)
    cells, n = grid(height, width).permute(2, 0, 1)[None].expand(b, -1, -1, -1), torch.tensor([height, width])
    answers, areas = {}, {}
    for corner in [(-1, -1), (-1, 1), (1, -1), (1, 1)]:
        at = (coord + torch.tensor(corner) / n + 1e-6).clamp(-1 + 1e-6, 1 - 1e-6)
        rel = (coord - sample(cells, at)) * n
        x = torch.cat([sample(unfolded, at), rel, cell * n], -1)
        for i, out in enumerate([*hidden, 3]):
            x = w.linear(f"imnet.layers.{2 * i}", F.relu(x) if i else x, out)
        answers[corner], areas[corner] = x, (rel[..., 0] * rel[..., 1]).abs() + 1e-9
    total = sum(areas.values())
    return sum(x * (areas[-dy, -dx] / total)[..., None] for (dy, dx), x in answers.items())


def liif(w, feat, size, hidden):
    """Features [b c h w] -> RGB [b H W 3]."""
    b = len(feat)
    coord = grid(*size).reshape(1, -1, 2).expand(b, -1, -1)
    cell = (2 / torch.tensor(size)).expand(coord.shape)
    return query(w, feat, coord, cell, hidden).reshape(b, *size, 3)
