"""What alignment does to a generative model: renders of z_0-hat, predicted from noised held-out pictures.

Run: python benchmarks/align_generation.py --before runs/emoji_diffusion --after runs/emoji_align --val DIR (4 minutes)
A picture is encoded, noised to five times with the same eps for both, z_0 predicted by each U-Net (Eq. 8) and rendered
by the decoder of --after at the picture's size. Prints PSNR and LPIPS (AlexNet) and the paired differences, means over
the pictures with standard errors. Needs the extra `eval`.
"""

import argparse

import jax.numpy as jnp
import numpy as np
from common import centre_crops, lpips_alex, markdown, paired, psnr, resized

import arbiscale_jax as aj
from arbiscale_jax import diffusion

TIMES = (100, 300, 500, 700, 900)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("before", "after", "val"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--num", type=int, default=100, help="pictures")
    args = parser.parse_args()
    before, after = aj.load(args.before), aj.load(args.after)
    np.testing.assert_allclose(before.scale_factor, after.scale_factor, rtol=1e-6)  # one space of latents
    alpha_bar = diffusion.make_alpha_bar(**after.config["schedule"])
    crops = centre_crops(args.val, 1024)
    names = np.random.default_rng(0).choice(sorted(crops), min(args.num, len(crops)), replace=False)
    scores = {(i, t): [] for i in range(2) for t in TIMES}
    for k, name in enumerate(names):
        truth = crops[name]
        x = resized(truth, (after.config["sampling"]["size"],) * 2)
        z_0 = after.encode(np.float32(x)[None] / 127.5 - 1)
        eps = np.random.default_rng(k).standard_normal(z_0.shape).astype(np.float32)
        for t in TIMES:
            times = jnp.full(1, t)
            z_t = diffusion.q_sample(z_0, eps, times, alpha_bar)
            for i, model in enumerate((before, after)):
                z_0_hat = diffusion.predict_z_0(z_t, model.denoise(z_t, t), times, alpha_bar)
                render = after.render(z_0_hat, truth.shape[:2])[0]
                scores[i, t].append((psnr(render, truth), lpips_alex(render, truth)))
    rows = []
    for t in TIMES:
        a, b = (np.asarray(scores[i, t]).T for i in range(2))
        means = [f"{a[0].mean():.2f}", f"{b[0].mean():.2f}", paired(b[0], a[0])]
        rows.append([str(t), *means, f"{a[1].mean():.4f}", f"{b[1].mean():.4f}", paired(b[1], a[1])])
    head = ["t", "PSNR before", "after", "paired", "LPIPS before", "after", "paired"]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
