"""What tables.py trains and measures: for the pictures at hand, or for the paper's data sets where they are."""

from collections.abc import Mapping
from typing import NamedTuple

from arbiscale_jax import data
from arbiscale_jax.errors import UserError

LSUN = {"lsun_bedroom": "LSUN bedroom", "lsun_tower": "LSUN tower"}  # the scenes of Table 2
BUDGETS = {"cpu": 1.0, "gpu": 2 / 15}  # minutes per minute of the configurations, which are for two CPU cores
TITLES = {  # of the runs in tables
    "bicubic": "bicubic",
    "liif": "LIIF",
    "esrgan": "ESRGAN",
    "sr3": "SR3",
    "idm": "IDM",
    "ours_first_stage": "the paper's method, first stage",
    "mlp_first_stage": "first stage without D",
    "ours_diffusion": "the paper's method, before alignment",
    "ours_align": "the paper's method, aligned (random_t)",
    "path_align": "aligned (reverse_ddim)",
    "sampling_align": "aligned (sampling)",
    "more_diffusion": "as many more minutes of the diffusion loss alone",
}
MODES = {"path_align": "reverse_ddim", "sampling_align": "sampling"}
ALIGNMENTS = ("ours_diffusion", "more_diffusion", "ours_align", *MODES)


class Training(NamedTuple):
    """A run of run_train.py."""

    name: str  # of the folder of the run
    config: str  # of the configuration in configs/
    options: tuple[str, ...] = ()  # more flags; {runs} stands for the folder of all runs
    as_long_as: str = ""  # the configuration whose minutes count; "" is its own


class Measurement(NamedTuple):
    """A run of run_eval.py."""

    name: str  # of its folder
    models: tuple[str, ...]  # runs, or bicubic
    options: tuple[str, ...]  # more flags


class Plan(NamedTuple):
    """What tables 2, 3, 4 and 6 are made of."""

    about: str  # the data, in words
    trainings: tuple[Training, ...]
    measurements: Mapping[str, tuple[Measurement, ...]]  # by table


def _own(prefix: str) -> list[Training]:
    """The paper's method from configs/PREFIX_STAGE.py, its ablation of the decoder, and all ways to align."""
    first, aligned = f"{prefix}_first_stage", f"{prefix}_align"
    start = "--config.init_from={runs}/ours_diffusion"
    return [
        *(Training(f"ours_{stage}", f"{prefix}_{stage}") for stage in ("first_stage", "diffusion", "align")),
        Training("mlp_first_stage", first, ("--config.model.first_stage.decoder=pointwise",)),
        *(Training(name, aligned, (start, f"--config.loss.align_mode={mode}")) for name, mode in MODES.items()),
    ]


def photos_plan(train: str, val: str) -> Plan:
    """The plan for folders of photographs."""
    root = f"--config.data.root={train}"
    more = ("--config.init_from={runs}/ours_diffusion", "--config.first_stage={runs}/ours_first_stage")
    trainings = [Training(name, f"baselines_{name}_photos") for name in ("liif", "sr3", "idm", "esrgan")]
    trainings += [*_own("compared"), Training("more_diffusion", "compared_diffusion", more, "compared_align")]
    data, common = f"--data={val}", (f"--data={val}", "--metrics=psnr,lpips")
    wild = (data, "--metrics=psnr,ssim,lpips,lpips_vgg", "--scales=4", "--max-side=256")
    far = (*common, "--scales=8,12,17", "--max-side=408")
    square = (*common, "--protocol=fixed_lr", "--lr-size=32")
    main = ("bicubic", "liif", "esrgan", "sr3", "idm", "ours_diffusion", "ours_align")
    short = ("--steps=5", "--start=0.3")
    return Plan(
        "photographs that no run was trained on",
        tuple(one._replace(options=(*one.options, root)) for one in trainings),
        {
            "2": (
                Measurement("2", main, (*square, "--scales=2,3,4,6,8,12")),
                Measurement("2_short", ("ours_diffusion", "ours_align"), (*square, "--scales=2,3,4,6,8,12", *short)),
            ),
            "3": (Measurement("3", main, wild), Measurement("3_short", ("ours_align",), (*wild, *short))),
            "4": (
                Measurement("4", ("bicubic", "liif", "ours_align"), far),
                Measurement("4_short", ("ours_align",), (*far, *short)),
            ),
            "6": (
                Measurement("6", ALIGNMENTS, (*square, "--scales=3,4,6,8")),
                Measurement("6_short", ALIGNMENTS, (*square, "--scales=3,4,6,8", *short)),
            ),
        },
    )


def faces_plan() -> Plan:
    """The plan for FFHQ and CelebA-HQ, at the published settings: Tables 2 and 6."""
    trainings = [Training(name, f"baselines_{name}_faces") for name in ("liif", "sr3", "idm")]
    square = ("--data=celeba_hq", "--metrics=psnr,ssim,lpips", "--protocol=fixed_lr", "--lr-size=16")
    main = ("bicubic", "liif", "sr3", "idm", "ours_diffusion", "ours_align")
    runs = tuple(name for name in ALIGNMENTS if name != "more_diffusion")
    return Plan(
        "CelebA-HQ, trained on FFHQ",
        (*trainings, *_own("faces_sr")),
        {
            "2": (Measurement("2", main, (*square, "--scales=5.3,7,10,10.7,12")),),
            "6": (Measurement("6", runs, (*square, "--scales=5.3,7,10,12")),),
        },
    )


def wild_plan() -> Plan:
    """The plan for DIV2K, at the published settings: Tables 3 and 4."""
    trainings = [Training(name, f"baselines_{name}_div2k") for name in ("liif", "idm", "esrgan")]
    trainings += [Training(f"ours_{stage}", f"div2k_sr_{stage}") for stage in ("first_stage", "diffusion", "align")]
    common = ("--data=div2k", "--split=val", "--metrics=psnr,ssim,lpips")
    main = ("bicubic", "liif", "esrgan", "idm", "ours_align")
    return Plan(
        "the validation pictures of DIV2K",
        tuple(trainings),
        {
            "3": (Measurement("3", main, (*common, "--scales=4")),),
            "4": (Measurement("4", ("bicubic", "liif", "ours_align"), (*common, "--scales=8,12,17")),),
        },
    )


def lsun_plan(name: str) -> Plan:
    """The plan for one of LSUN at x16, the right part of Table 2; no configuration of IDM for it was published."""
    trainings = [Training(f"ours_{stage}", f"{name}_sr_{stage}") for stage in ("first_stage", "diffusion", "align")]
    options = (f"--data={name}", "--split=val", "--metrics=psnr,lpips", "--protocol=fixed_lr", "--lr-size=16")
    one = Measurement("2", ("bicubic", "ours_diffusion", "ours_align"), (*options, "--scales=16"))
    return Plan(f"the validation pictures of {LSUN[name]}", tuple(trainings), {"2": (one,)})


def is_there(*names: str) -> bool:
    """Whether all of these known data sets are found in $ARBISCALE_DATA or data/."""
    try:
        return all(len(data.make_source(name, split="all", cache_bytes=0)) for name in names)
    except UserError:
        return False


def choose(table: str, train: str, val: str) -> tuple[str, Plan]:
    """Returns the name of the folder of runs and the plan for Table 2, 3, 4 or 6."""
    if table in ("2", "6") and is_there("ffhq", "celeba_hq"):
        return "faces", faces_plan()
    if table in ("3", "4") and is_there("div2k"):
        return "div2k", wild_plan()
    return "photos", photos_plan(train, val)


def needed(plan: Plan, table: str) -> list[Training]:
    """Returns the trainings whose runs a table measures, with their predecessors, in the order of the plan."""
    names = {name for one in plan.measurements[table] for name in one.models}
    if names & {"ours_diffusion", "ours_align", *MODES}:
        names |= {"ours_first_stage", "ours_diffusion"}
    if table == "6":
        names.add("mlp_first_stage")
    return [one for one in plan.trainings if one.name in names]
