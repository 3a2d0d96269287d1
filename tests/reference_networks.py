"""The reference implementation's networks again, in torch.nn.functional, for tests of arbiscale_jax.interop.

Nothing here knows interop's layout: names and shapes of the weights come from the forward pass, which draws a tensor
the first time it asks for it (on device "meta": its shape alone).
"""

import math

import torch
import torch.nn.functional as F


class Weights(dict):
    """A state dict that fills itself."""

    def __init__(self, device="cpu", seed=0):
        super().__init__()
        self.device, self.rng = device, torch.Generator().manual_seed(seed)

    def ask(self, name, *shape):
        if name not in self:
            self[name] = torch.empty(shape, device="meta") if self.device == "meta" else self.draw(shape, name)
        assert tuple(self[name].shape) == shape, name
        return self[name]

    def draw(self, shape, name):
        x = torch.randn(shape, generator=self.rng)
        if len(shape) > 1:
            return x / math.sqrt(math.prod(shape[1:]))
        return 0.1 * x + name.endswith(".weight")

    def conv(self, name, x, out, kernel=3, stride=1, padding=1):
        weight, bias = self.ask(f"{name}.weight", out, x.shape[1], kernel, kernel), self.ask(f"{name}.bias", out)
        return F.conv2d(x, weight, bias, stride, padding)

    def conv1d(self, name, x, out):
        return F.conv1d(x, self.ask(f"{name}.weight", out, x.shape[1], 1), self.ask(f"{name}.bias", out))

    def linear(self, name, x, out):
        return F.linear(x, self.ask(f"{name}.weight", out, x.shape[-1]), self.ask(f"{name}.bias", out))

    def norm(self, name, x, eps):
        c = x.shape[1]
        return F.group_norm(x, 32, self.ask(f"{name}.weight", c), self.ask(f"{name}.bias", c), eps)


def resnet_block(w, name, x, out):
    h = w.conv(f"{name}.conv1", F.silu(w.norm(f"{name}.norm1", x, 1e-6)), out)
    h = w.conv(f"{name}.conv2", F.silu(w.norm(f"{name}.norm2", h, 1e-6)), out)
    if x.shape[1] != out:
        x = w.conv(f"{name}.nin_shortcut", x, out, 1, padding=0)
    return x + h


def attn_block(w, name, x, cfg):
    if cfg.get("attn_type") == "none":
        return x
    b, c, height, width = x.shape
    y = w.norm(f"{name}.norm", x, 1e-6)
    q, k, v = (w.conv(f"{name}.{i}", y, c, 1, padding=0).flatten(2) for i in "qkv")
    share = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) / math.sqrt(c), dim=-1)
    y = torch.einsum("bqk,bck->bcq", share, v).reshape(b, c, height, width)
    return x + w.conv(f"{name}.proj_out", y, c, 1, padding=0)


def middle(w, name, x, cfg):
    x = attn_block(w, f"{name}.attn_1", resnet_block(w, f"{name}.block_1", x, x.shape[1]), cfg)
    return resnet_block(w, f"{name}.block_2", x, x.shape[1])


def encode(w, x, cfg, name="first_stage_model.encoder.0", quant="first_stage_model.encoder.1"):
    """Image [b 3 H W] -> moments [b c or 2c H/f W/f]."""
    resolution = cfg["resolution"]
    h = w.conv(f"{name}.conv_in", x, cfg["ch"])
    for level, mult in enumerate(cfg["ch_mult"]):
        for i in range(cfg["num_res_blocks"]):
            h = resnet_block(w, f"{name}.down.{level}.block.{i}", h, cfg["ch"] * mult)
            if resolution in cfg["attn_resolutions"]:
                h = attn_block(w, f"{name}.down.{level}.attn.{i}", h, cfg)
        if level + 1 < len(cfg["ch_mult"]):
            h = w.conv(f"{name}.down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), h.shape[1], 3, 2, 0)
            resolution //= 2
    h = F.silu(w.norm(f"{name}.norm_out", middle(w, f"{name}.mid", h, cfg), 1e-6))
    out = cfg["z_channels"] * (2 if cfg["double_z"] else 1)
    return w.conv(quant, w.conv(f"{name}.conv_out", h, out), out, 1, padding=0)


def features(w, z, cfg, prefix="first_stage_model."):
    """Latent [b c h w] -> features [b d h w]."""
    name, c = f"{prefix}decoder.decoder.1", cfg["z_channels"]
    resolution = cfg["resolution"] // 2 ** (len(cfg["ch_mult"]) - 1)
    h = w.conv(f"{prefix}decoder.decoder.0", z, c, 1, padding=0)
    h = middle(w, f"{name}.mid", w.conv(f"{name}.conv_in", h, cfg["ch"] * cfg["ch_mult"][-1]), cfg)
    for level in reversed(range(len(cfg["ch_mult"]))):
        for i in range(cfg["num_res_blocks"] + 1):
            h = resnet_block(w, f"{name}.up.{level}.block.{i}", h, cfg["ch"] * cfg["ch_mult"][level])
            if resolution in cfg["attn_resolutions"]:
                h = attn_block(w, f"{name}.up.{level}.attn.{i}", h, cfg)
    return h


def centres(n, device):
    return -1 + (2 * torch.arange(n, device=device) + 1) / n


def liif(w, feat, size, cfg, prefix="first_stage_model."):
    """Features [b d h w] -> RGB [b H W 3], coordinate by coordinate."""
    b, _, h, width = feat.shape
    grid = [
        torch.stack(torch.meshgrid(*(centres(n, feat.device) for n in s), indexing="ij"), -1)
        for s in (size, (h, width))
    ]
    coord, cells = grid[0].reshape(1, -1, 2).expand(b, -1, 2), grid[1].permute(2, 0, 1)[None].expand(b, -1, -1, -1)
    scale = torch.tensor([h, width], device=feat.device)
    cell = (2 / torch.tensor(size, device=feat.device) * scale).expand(coord.shape)
    answers, areas = [], []
    for shift in [(y, x) for y in (-1, 1) for x in (-1, 1)] if cfg["local_ensemble"] else [(0, 0)]:
        at = coord + (torch.tensor(shift, device=feat.device) / scale + 1e-6 * cfg["local_ensemble"])
        at = at.clamp(-1 + 1e-6, 1 - 1e-6).flip(-1)[:, None]  # grid_sample takes (x, y)
        near, where = (F.grid_sample(m, at, "nearest", align_corners=False)[:, :, 0].mT for m in (feat, cells))
        rel = (coord - where) * scale
        x = torch.cat([near, rel, cell] if cfg["cell_decode"] else [near, rel], -1)
        for i, width_out in enumerate([*cfg["hidden_list"], 3]):
            x = w.linear(f"{prefix}decoder.inr.imnet.layers.{2 * i}", F.relu(x) if i else x, width_out)
        answers.append(x)
        areas.append(rel.prod(-1).abs() + 1e-9)
    shares = [area / sum(areas) for area in reversed(areas)]  # of the opposite rectangle
    return sum(x * s[..., None] for x, s in zip(answers, shares, strict=True)).reshape(b, *size, 3)


def unet_res(w, name, x, emb, out, cfg, resample=None):
    h = F.silu(w.norm(f"{name}.in_layers.0", x, 1e-5))
    if resample:
        h, x = resample(h), resample(x)
    h = w.conv(f"{name}.in_layers.2", h, out)
    double = cfg.get("use_scale_shift_norm", False)
    emb = w.linear(f"{name}.emb_layers.1", F.silu(emb), out * (1 + double))[..., None, None]
    if double:
        scale, shift = emb.chunk(2, dim=1)
        h = w.norm(f"{name}.out_layers.0", h, 1e-5) * (1 + scale) + shift
    else:
        h = w.norm(f"{name}.out_layers.0", h + emb, 1e-5)
    h = w.conv(f"{name}.out_layers.3", F.silu(h), out)
    if x.shape[1] != out:
        x = w.conv(f"{name}.skip_connection", x, out, 1, padding=0)
    return x + h


def unet_attention(w, name, x, cfg):
    b, c, height, width = x.shape
    heads = c // cfg["num_head_channels"] if cfg.get("num_head_channels", -1) > 0 else cfg["num_heads"]
    x = x.flatten(2)
    qkv = w.conv1d(f"{name}.qkv", w.norm(f"{name}.norm", x, 1e-5), 3 * c)
    q, k, v = qkv.reshape(b, heads, 3, c // heads, -1).unbind(2)  # within each head q, k, v
    share = torch.softmax(torch.einsum("bhcq,bhck->bhqk", q, k) / math.sqrt(c // heads), dim=-1)
    y = torch.einsum("bhqk,bhck->bhcq", share, v).reshape(b, c, -1)
    return (x + w.conv1d(f"{name}.proj_out", y, c)).reshape(b, c, height, width)


def up(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def unet(w, x, t, cfg, prefix="model.diffusion_model."):
    """Input [b c h w] (condition appended), times [b] -> eps."""
    ch, mults, updown = cfg["model_channels"], cfg["channel_mult"], cfg.get("resblock_updown", False)
    blocks = cfg["num_res_blocks"]
    blocks = [blocks] * len(mults) if isinstance(blocks, int) else blocks
    freqs = torch.exp(-math.log(10_000) * torch.arange(ch // 2, device=x.device) / (ch // 2))
    angle = t[:, None].float() * freqs
    emb = w.linear(f"{prefix}time_embed.0", torch.cat([angle.cos(), angle.sin()], -1), 4 * ch)
    emb = w.linear(f"{prefix}time_embed.2", F.silu(emb), 4 * ch)
    h = w.conv(f"{prefix}input_blocks.0.0", x, ch)
    skips, number = [h], 1
    for level, mult in enumerate(mults):
        for _ in range(blocks[level]):
            h = unet_res(w, f"{prefix}input_blocks.{number}.0", h, emb, ch * mult, cfg)
            if 2**level in cfg["attention_resolutions"]:
                h = unet_attention(w, f"{prefix}input_blocks.{number}.1", h, cfg)
            skips.append(h)
            number += 1
        if level + 1 < len(mults):
            name = f"{prefix}input_blocks.{number}.0"
            if updown:
                h = unet_res(w, name, h, emb, h.shape[1], cfg, lambda a: F.avg_pool2d(a, 2))
            else:
                h = w.conv(f"{name}.op", h, h.shape[1], 3, 2, 1)
            skips.append(h)
            number += 1
    h = unet_res(w, f"{prefix}middle_block.0", h, emb, h.shape[1], cfg)
    h = unet_attention(w, f"{prefix}middle_block.1", h, cfg)
    h = unet_res(w, f"{prefix}middle_block.2", h, emb, h.shape[1], cfg)
    number = 0
    for level in reversed(range(len(mults))):
        for i in range(blocks[level] + 1):
            name, layer = f"{prefix}output_blocks.{number}", 1
            h = unet_res(w, f"{name}.0", torch.cat([h, skips.pop()], 1), emb, ch * mults[level], cfg)
            if 2**level in cfg["attention_resolutions"]:
                h, layer = unet_attention(w, f"{name}.1", h, cfg), 2
            if level and i == blocks[level]:
                if updown:
                    h = unet_res(w, f"{name}.{layer}", h, emb, h.shape[1], cfg, up)
                else:
                    h = w.conv(f"{name}.{layer}.conv", up(h), h.shape[1])
            number += 1
    return w.conv(f"{prefix}out.2", F.silu(w.norm(f"{prefix}out.0", h, 1e-5)), cfg["out_channels"])


@torch.no_grad()
def whole_model(arch, device="cpu", seed=0, side=16):
    """The weights of a diffusion model's file, by passing something of `side` pixels through every network."""
    w, f = Weights(device, seed), 2 ** (len(arch["first_stage"]["ch_mult"]) - 1)
    encode(w, torch.zeros(1, 3, side, side, device=device), arch["first_stage"])
    z = torch.zeros(1, arch["first_stage"]["z_channels"], 2, 2, device=device)
    liif(w, features(w, z, arch["first_stage"]), (2, 2), arch["liif"])
    cells = max(side // f, 2 ** (len(arch["unet"]["channel_mult"]) - 1))
    z = torch.zeros(1, arch["unet"]["in_channels"], cells, cells, device=device)
    unet(w, z, torch.zeros(1, dtype=torch.int64, device=device), arch["unet"])
    return w
