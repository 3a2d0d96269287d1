"""What the perceptual and adversarial terms do to the first stage: equal minutes with L1, L1 + LPIPS, and all terms.

Run: python benchmarks/first_stage_losses.py --train DIR --val DIR --minutes 30 --output out/first_stage_losses
The network is the quick start's, with a KL term in all three. Prints a table over the central crops of the validation
images: reconstruction at their own size, and of the halved crop rendered at twice its size; writes a picture for each
variant (crop, reconstruction, halved and rendered). Needs the extra `eval`. More fields: --set FIELD=VALUE ...
"""

import numpy as np
from common import centre_crops, lpips_alex, make_parser, markdown, psnr, resized
from PIL import Image

import arbiscale_jax as aj
from arbiscale_jax.artifacts import storage
from arbiscale_jax.experiments import get_quickstart_config
from arbiscale_jax.inference import to_floats
from arbiscale_jax.training import train

VARIANTS = {
    "l1": ("L1", {}),
    "l1_lpips": ("L1 + LPIPS", {"loss.lpips_weight": 0.5}),
    "all": ("L1 + LPIPS + discriminator", {"loss.lpips_weight": 0.5, "loss.disc_weight": 0.5}),
}


def get_config(options, fields: dict):
    config = get_quickstart_config("sr", "first_stage").copy_and_resolve_references().unlock()
    config.model.first_stage.double_z = True
    config.data.update(source="folder", root=options.train, val_source="folder", val_root=options.val)
    config.data.update(target_min=32, target_patch=32)
    config.loss.update(disc_start=options.disc_start, disc_layers=2, disc_ch=32)
    config.train.minutes = options.minutes
    config.update_from_flattened_dict({**fields, **dict(options.set)})
    return config.lock()


def reconstruct(model, x, size):
    """Encodes uint8 [h w 3] and renders it at `size` -> uint8."""
    return model.render(model.encode(to_floats(x)[None]), size)[0]


def main():
    parser = make_parser(__doc__, 30.0, "out/first_stage_losses")
    parser.add_argument("--train", required=True, help="folder of training images")
    parser.add_argument("--disc-start", type=int, default=1000, help="steps before the discriminator joins")
    options = parser.parse_args()

    crops, rows = centre_crops(options.val, options.side), []
    for name, (title, fields) in VARIANTS.items():
        run = options.output / name
        train(get_config(options, fields), run)
        model, found, pictures = aj.load(run), [], []
        for x in crops.values():
            size = x.shape[:2]
            same = reconstruct(model, x, size)
            twice = reconstruct(model, resized(x, (size[0] // 2, size[1] // 2)), size)
            found.append([psnr(same, x), lpips_alex(same, x), psnr(twice, x), lpips_alex(twice, x)])
            pictures.append(np.concatenate([x, same, twice], axis=1))
        wide = max(p.shape[1] for p in pictures)
        pictures = [np.pad(p, ((0, 0), (0, wide - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
        Image.fromarray(np.concatenate(pictures)).save(options.output / f"{name}.png")
        numbers = [f"{n:.{2 if i % 2 == 0 else 4}f}" for i, n in enumerate(np.mean(found, axis=0))]
        rows.append([title, str(storage.newest_step(run)), *numbers])
    print(f"\n{len(crops)} crops of up to {options.side} pixels, {options.minutes:g} minutes of training each")
    print(markdown(["loss", "steps", "PSNR", "LPIPS", "PSNR, x2 of half", "LPIPS, x2 of half"], rows))


if __name__ == "__main__":
    main()
