"""SR3's and IDM's networks again, in torch.nn.functional, for tests of arbiscale_jax.baselines.

Nothing here knows how the weights are mapped: names and shapes come from the forward pass, as in reference_networks.
`cfg` is the "unet" part of a configuration of the public code with image_size; images are [b c h w].
"""

import math

import torch
import torch.nn.functional as F
from reference_networks import Weights, centres

UNET = dict(
    inner_channel=64, channel_multiplier=[1, 2, 4, 8, 8], attn_res=[16], res_blocks=2, norm_groups=32, image_size=128
)
BUFFERS = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
)


def group_norm(w, name, x, cfg):
    weight, bias = (w.ask(f"{name}.{i}", x.shape[1]) for i in ("weight", "bias"))
    return F.group_norm(x, cfg["norm_groups"], weight, bias)


def block(w, name, x, out, cfg):
    return w.conv(f"{name}.block.3", F.silu(group_norm(w, f"{name}.block.0", x, cfg)), out)


def res_block(w, name, x, emb, out, cfg):
    h = block(w, f"{name}.block1", x, out, cfg)
    h = h + w.linear(f"{name}.noise_func.noise_func.0", emb, out)[..., None, None]
    h = block(w, f"{name}.block2", h, out, cfg)
    return h + (x if x.shape[1] == out else w.conv(f"{name}.res_conv", x, out, 1, padding=0))


def attention(w, name, x, cfg):
    b, c, height, width = x.shape
    y = group_norm(w, f"{name}.norm", x, cfg)
    q, k, v = F.conv2d(y, w.ask(f"{name}.qkv.weight", 3 * c, c, 1, 1)).flatten(2).chunk(3, 1)
    share = torch.softmax(q.mT @ k / math.sqrt(c), -1)  # b query key
    return x + w.conv(f"{name}.out", (v @ share.mT).reshape(b, c, height, width), c, 1, padding=0)


def both(w, name, x, emb, out, cfg, attend):
    x = res_block(w, f"{name}.res_block", x, emb, out, cfg)
    return attention(w, f"{name}.attn", x, cfg) if attend else x


def unet(w, x, noise_level, cfg, enlarge=None, prefix="denoise_fn."):
    """The condition and the noisy image [b 6 h w], noise level [b 1] -> eps [b 3 h w]."""
    ch, resolution = cfg["inner_channel"], cfg["image_size"]
    angle = noise_level * torch.exp(-math.log(10_000) * torch.arange(ch // 2, device=x.device) / (ch // 2))
    emb = w.linear(f"{prefix}noise_level_mlp.1", torch.cat([angle.sin(), angle.cos()], -1), 4 * ch)
    emb = w.linear(f"{prefix}noise_level_mlp.3", F.silu(emb), ch)
    widths = [ch * mult for mult in cfg["channel_multiplier"]]
    x = w.conv(f"{prefix}downs.0", x, ch)
    skips, number = [x], 1
    for level, out in enumerate(widths):
        for _ in range(cfg["res_blocks"]):
            x = both(w, f"{prefix}downs.{number}", x, emb, out, cfg, resolution in cfg["attn_res"])
            skips.append(x)
            number += 1
        if level + 1 < len(widths):
            x = w.conv(f"{prefix}downs.{number}.conv", x, out, stride=2)
            skips.append(x)
            number, resolution = number + 1, resolution // 2
    x = both(w, f"{prefix}mid.0", x, emb, x.shape[1], cfg, True)
    x = both(w, f"{prefix}mid.1", x, emb, x.shape[1], cfg, False)
    number = 0
    for level in reversed(range(len(widths))):
        for _ in range(cfg["res_blocks"] + 1):
            x = torch.cat([x, skips.pop()], 1)
            x = both(w, f"{prefix}ups.{number}", x, emb, widths[level], cfg, resolution in cfg["attn_res"])
            number += 1
        if level:
            name, resolution = f"{prefix}ups.{number}", resolution * 2
            if enlarge:
                x = enlarge(name, x, skips[-1].shape[2:], level)
            else:
                x = w.conv(f"{name}.conv", F.interpolate(x, scale_factor=2), widths[level])
            number += 1
    return block(w, f"{prefix}final_conv", x, 3, cfg)


def leaky(x, bias):
    return F.leaky_relu(x + bias[:, None, None], 0.2) * math.sqrt(2)


def equal_conv(w, name, x, out, layer=0, activate=True, stride=1):
    weight = w.ask(f"{name}.{layer}.weight", out, x.shape[1], 3, 3) / math.sqrt(9 * x.shape[1])
    bias = w.ask(f"{name}.{layer + activate}.bias", out)
    if activate:
        return leaky(F.conv2d(x, weight, None, stride, 1), bias)
    return F.conv2d(x, weight, bias, stride, 1)


def blur(x):
    row = torch.tensor([1.0, 3.0, 1.0], device=x.device)
    kernel = torch.outer(row, row) / 25
    return F.conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


def implicit(w, name, x, size, guide):
    """Features [b c h w] -> [b c *size], pixel by pixel."""
    b, c, h, width = x.shape
    scale1, scale2, shift = guide
    length = torch.sqrt(scale1**2 + scale2**2 + 1e-8)
    x = x * (scale1 / length)[..., None, None] + shift * (scale2 / length)[..., None, None]
    x = leaky(x, w.ask(f"{name}.style.activate.bias", c))
    pixels, cells = (
        torch.stack(torch.meshgrid(*(centres(n, x.device) for n in s), indexing="ij"), -1) for s in (size, (h, width))
    )
    coord = pixels.reshape(1, -1, 2).expand(b, -1, 2)
    at = coord.clamp(-1 + 1e-6, 1 - 1e-6).flip(-1)[:, None]
    cells = cells.permute(2, 0, 1)[None].expand(b, -1, -1, -1)
    near, where = (F.grid_sample(m, at, "nearest", align_corners=False)[:, :, 0].mT for m in (x, cells))
    y = torch.cat([near, (coord - where) * torch.tensor([h, width], device=x.device)], -1)
    y = w.linear(f"{name}.imnet.1", w.linear(f"{name}.imnet.0", y, 256), c)
    return y.mT.reshape(b, c, *size)


def idm_condition(w, lr, size, channels=64, blocks=16):
    """Image [b 3 h w] -> the condition [b 3 *size]."""
    x = head = w.conv("encoder.head.0", lr, channels)
    for i in range(blocks):
        h = F.relu(w.conv(f"encoder.body.{i}.body.0", x, channels))
        x = x + w.conv(f"encoder.body.{i}.body.2", h, channels)
    x = head + w.conv(f"encoder.body.{blocks}", x, channels)
    return w.conv("encoder.tail.0", F.interpolate(x, size), 3)


def idm(w, x_t, noise_level, condition, fraction, cfg, prefix="denoise_fn."):
    """Noisy image and condition [b 3 h w], noise level [b 1], fraction [b 1] -> eps [b 3 h w]."""
    widths = [cfg["inner_channel"] * mult for mult in cfg["channel_multiplier"]]
    feat, guides = equal_conv(w, f"{prefix}conv_body_first", condition, widths[0]), []
    for level, out in enumerate(widths):
        scales = [w.linear(f"{prefix}condition_scale{i}.{level}", fraction, out) for i in (1, 2)]
        guides.append((*scales, equal_conv(w, f"{prefix}condition_shift.{level}", feat, out, activate=False)))
        feat = equal_conv(w, f"{prefix}conv_body_down.{level}", blur(feat), out, 1, stride=2)

    def enlarge(name, x, size, level):
        return implicit(w, name, x, size, guides[level])

    return unet(w, torch.cat([condition, x_t], 1), noise_level, cfg, enlarge, prefix)


def idm_unused(w, cfg, prefix="denoise_fn."):
    """Draws what IDM's state dict holds and its forward pass does not ask for; returns nothing."""
    for side in ("sub", "add"):
        w.ask(f"encoder.{side}_mean.weight", 3, 3, 1, 1)
        w.ask(f"encoder.{side}_mean.bias", 3)
    for i, (a, b) in enumerate([(66, 256), (256, 256), (256, 256), (256, 256), (256, 3)]):
        w.ask(f"imnet.layers.{2 * i}.weight", b, a)
        w.ask(f"imnet.layers.{2 * i}.bias", b)
    for name, a, b, layer in (
        ("final_down1", 512, 512, 0),
        ("final_down2", 512, 256, 1),
        ("final_styleconv", 512, 512, 0),
    ):
        w.ask(f"{prefix}{name}.{layer}.weight", b, a, 3, 3)
        w.ask(f"{prefix}{name}.{layer + 1}.bias", b)
    w.ask(f"{prefix}final_linear.weight", 2048, 1024)
    w.ask(f"{prefix}final_linear.bias", 2048)
    for name in [key for key in w if key.endswith(".style.activate.bias")]:
        c, style = len(w[name]), name.removesuffix(".activate.bias")
        w.ask(f"{style}.weight", 1)
        w.ask(f"{style}.modulated_conv.weight", 1, c, c, 3, 3)
        w.ask(f"{style}.modulated_conv.modulation.weight", c, 512)
        w.ask(f"{style}.modulated_conv.modulation.bias", c)


@torch.no_grad()
def sr3_weights(cfg=UNET, device="cpu"):
    """All weights of SR3 by name, from a small forward pass."""
    w, side = Weights(device), 2 ** (len(cfg["channel_multiplier"]) - 1)
    unet(w, torch.zeros(1, 6, side, side, device=device), torch.ones(1, 1, device=device), cfg)
    return w


@torch.no_grad()
def idm_weights(cfg=UNET, device="cpu", **encoder):
    """All weights of IDM by name, from a small forward pass."""
    w = Weights(device)
    condition = idm_condition(w, torch.zeros(1, 3, 2, 2, device=device), (16, 16), **encoder)
    one = torch.ones(1, 1, device=device)
    idm(w, torch.zeros(1, 3, 16, 16, device=device), one, condition, one, cfg)
    idm_unused(w, cfg)
    return w
