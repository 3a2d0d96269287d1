"""Names of the metrics and what they mean; importing it costs nothing."""

_UPSCALE = {
    "psnr": "PSNR in dB over RGB",
    "ssim": "SSIM, mean over RGB",
    "psnr_y": "PSNR in dB of BT.601's Y",
    "ssim_y": "SSIM of BT.601's Y",
    "lpips": "LPIPS (AlexNet)",
    "lpips_vgg": "LPIPS (VGG-16)",
    "lr_psnr": "LR-consistency: PSNR in dB of the reduced output against the input",
    "color": "mean colour error, of 255: mean |difference| of the channels' means; color_r, _g, _b: output - truth",
    "weave": "patterns added everywhere (stripes, dots), of all images together; photographs 1.5 to 2, bicubic 7 to 15",
    "diversity": "mean LPIPS (AlexNet) between an input's --samples answers",
    "speed": "seconds for the first image in parts (encode, sample, decode, render), FPS, peak memory",
}
_GENERATE = {
    "fd": "Fréchet distance of features: FID with --features=inception, else FD-VGG",
    "kd": "kernel distance of features: KID with --features=inception, else KD-VGG",
    "precision": "share of generated images within the manifold of the real ones (3 nearest neighbours)",
    "recall": "share of real images within the manifold of the generated ones",
    "selfssim": "SelfSSIM: agreement of renders of one latent at the sizes; needs two or more",
    "speed": "seconds for one image in parts (sample, decode, render), FPS, peak memory",
}
METRICS = {"upscale": _UPSCALE, "generate": _GENERATE}
DEFAULT = {"upscale": "psnr,ssim,lpips", "generate": "fd,kd,precision,recall,selfssim"}
