"""Names the metrics and says what they mean; this module imports nothing, so that --help is fast."""

_UPSCALE = {
    "psnr": "PSNR in dB over RGB",
    "ssim": "SSIM, mean over RGB",
    "psnr_y": "PSNR in dB over the luma Y of BT.601",
    "ssim_y": "SSIM of the luma Y of BT.601",
    "lpips": "LPIPS (AlexNet)",
    "lpips_vgg": "LPIPS (VGG-16)",
    "lr_psnr": "LR-consistency: PSNR in dB of the reduced output against the input",
    "color": "mean |difference| of the channels' means, on the scale 0..255; color_r, _g, _b: output - truth",
    "weave": "strength of patterns (stripes, dots) added everywhere, over all images; photographs 1.5-2, bicubic 7-15",
    "diversity": "mean LPIPS (AlexNet) between the --samples answers for an input",
    "speed": "seconds for the parts of the first image (encode, sample, decode, render), FPS, peak memory",
}
_GENERATE = {
    "fd": "Fréchet distance of features: FID with --features=inception, else FD-VGG",
    "kd": "kernel distance of features: KID with --features=inception, else KD-VGG",
    "patch_fd": "Fréchet distance of windows of --patch pixels at random places, at sizes larger than that",
    "precision": "share of generated images within the manifold of the real ones (3 nearest neighbours)",
    "recall": "share of real images within the manifold of the generated ones",
    "nearest": "distance to the nearest training picture (--train) over that picture's to its own nearest neighbour",
    "selfssim": "SelfSSIM: agreement of one latent's renders at two or more sizes",
    "speed": "seconds for the parts of one image (sample, decode, render), FPS, peak memory",
}
METRICS = {"upscale": _UPSCALE, "generate": _GENERATE}
DEFAULT = {"upscale": "psnr,ssim,lpips", "generate": "fd,kd,precision,recall,selfssim"}
