"""The numbers that the paper prints in its Tables 1 to 6 and quotes of other methods, as tables.py shows them."""

Rows = dict[str, dict[str, str]]  # method -> column -> what is printed

TABLE_1: Rows = {  # LSUN bedroom: FID, precision, recall in percent, SelfSSIM to 128, 160 and 192
    "MSPIE": {
        "128": "11.39 / 66.45 / 26.97; 1.00 0.10 0.10",
        "160": "16.45 / 63.84 / 23.09; 0.10 1.00 0.12",
        "192": "12.65 / 58.10 / 25.93; 0.10 0.12 1.00",
    },
    "ScaleParty": {
        "128": "10.15 / 62.50 / 20.63; 1.00 0.94 0.92",
        "160": "9.85 / 64.14 / 22.02; 0.92 1.00 0.95",
        "192": "9.91 / 64.77 / 21.10; 0.89 0.94 1.00",
    },
    "the paper's method": {
        "128": "7.20 / 59.69 / 38.26; 1.00 0.98 0.99",
        "160": "7.43 / 58.52 / 32.12; 0.96 1.00 0.99",
        "192": "7.73 / 59.57 / 27.98; 0.95 0.97 1.00",
    },
}
TABLE_2: Rows = {  # CelebA-HQ from 16 x 16, trained on FFHQ up to x8: PSNR / LPIPS
    "LIIF": {
        "x5.3": "27.52 / 0.1207",
        "x7": "25.09 / 0.1678",
        "x10": "22.97 / 0.2246",
        "x10.7": "22.39 / 0.2276",
        "x12": "21.81 / 0.2332",
    },
    "SR3": {"x7": "21.15 / 0.1680", "x10": "20.25 / 0.2856", "x12": "19.48 / 0.3947"},
    "IDM": {
        "x5.3": "23.34 / 0.0526",
        "x7": "23.55 / 0.0736",
        "x10": "23.46 / 0.1171",
        "x10.7": "23.30 / 0.1238",
        "x12": "23.06 / 0.1800",
    },
    "the paper's method": {
        "x5.3": "24.66 / 0.0455",
        "x7": "24.13 / 0.0690",
        "x10": "23.64 / 0.1110",
        "x10.7": "23.62 / 0.1183",
        "x12": "23.52 / 0.1427",
    },
}
TABLE_2_LSUN: Rows = {  # x16: PSNR / LPIPS
    "PULSE": {"bedroom": "12.97 / 0.7131", "tower": "13.62 / 0.7066"},
    "GLEAN": {"bedroom": "19.44 / 0.3310", "tower": "18.41 / 0.2850"},
    "IDM": {"bedroom": "20.33 / 0.3290", "tower": "19.44 / 0.2549"},
    "the paper's method": {"bedroom": "20.08 / 0.3269", "tower": "21.24 / 0.1897"},
}
TABLE_3: Rows = {  # DIV2K (D) and Flickr2K (F) at x4: PSNR / SSIM
    "EDSR, D + F": {"x4": "28.98 / 0.83"},
    "LIIF, D + F": {"x4": "29.00 / 0.89"},
    "ESRGAN, D + F": {"x4": "26.22 / 0.75"},
    "RankSRGAN, D + F": {"x4": "26.55 / 0.75"},
    "SRFlow, D + F": {"x4": "27.09 / 0.76"},
    "HCFlow++, D + F": {"x4": "26.61 / 0.74"},
    "IDM, D": {"x4": "27.10 / 0.77"},
    "IDM, D + F": {"x4": "27.59 / 0.78"},
    "the paper's method, D": {"x4": "27.61 / 0.81"},
}
TABLE_4: Rows = {  # DIV2K: PSNR / LPIPS
    "LIIF": {"x8": "23.97 / 0.4790", "x12": "22.28 / 0.5900", "x17": "21.23 / 0.6560"},
    "the paper's method": {"x8": "23.82 / 0.4265", "x12": "22.73 / 0.5463", "x17": "21.83 / 0.6225"},
}
TABLE_5: Rows = {  # frames per second on an RTX 4090
    "IDM": {"x8": "0.0202", "x12": "0.0200", "x30": "0.00654", "x100": "0.000398", "x200": "out of memory"},
    "the paper's method": {"x8": "0.2568", "x12": "0.2510", "x30": "0.2473", "x100": "0.1833", "x200": "0.0982"},
}
TABLE_6_DECODER: Rows = {  # PSNR of reconstructions
    "MLP": {"16 to 128 (x8)": "22.96", "64 to 256 (x4)": "32.54"},
    "AE + MLP": {"16 to 128 (x8)": "35.28", "64 to 256 (x4)": "35.93"},
}
TABLE_6_ALIGNMENT: Rows = {  # PSNR / LPIPS
    "before": {"x5.3": "22.79 / 0.0600", "x7": "22.49 / 0.0932", "x10": "23.23 / 0.1691", "x12": "22.14 / 0.2077"},
    "after": {"x5.3": "24.66 / 0.0455", "x7": "24.13 / 0.0690", "x10": "23.64 / 0.1110", "x12": "23.52 / 0.1427"},
}
NOT_RUN = {  # methods that the paper quotes, and why they are not trained here
    "EDSR": "our encoder of LIIF is EDSR's, which runs as a part of LIIF",
    "RankSRGAN": "it needs a ranker that was trained on the results of other trained networks",
    "SRFlow, HCFlow++": "normalizing flows, which share no part with the methods here",
    "PULSE": "it searches the latents of a StyleGAN that was trained on faces",
    "GLEAN": "it needs a trained StyleGAN of the data set",
    "CIPS, MSPIE, MS-PE, ScaleParty": "generative adversarial networks that train for GPU days",
}
