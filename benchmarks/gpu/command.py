"""What photos.py and emoji.py share: their options, JAX's settings, the run itself."""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

MINUTES, REHEARSAL_MINUTES = 8.0, 0.9
SPEED_SECONDS = 150.0  # kept for --speed


def make_parser(doc: str) -> argparse.ArgumentParser:
    """Returns the parser of both commands."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, help="folder of pack.py")
    parser.add_argument("--out", type=Path, help="for the model, figures and sheets; default: out/kit")
    parser.add_argument("--state", type=Path, help="for what a second call needs; default: OUT.state beside OUT")
    parser.add_argument("--minutes", type=float, help="of the call, the judge included; default: 8, rehearsed 0.9")
    parser.add_argument("--machine", choices=("gpu", "cpu"), default="gpu", help="sizes of batches and windows")
    parser.add_argument("--autotune", type=int, default=0, help="XLA's level; more takes longer to compile")
    parser.add_argument("--speed", action="store_true", help="at last measure the speed (benchmarks/speed.py, a and b)")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on a CPU, with pictures of its own")
    return parser


def run(doc: str, parts: Callable, finish: Callable, reserve: float, *, labels: bool = False) -> None:
    """Runs a command: parses its options, trains what `parts` makes of them, and ends with `finish`.

    Args: doc, the text of --help; parts, (options) -> the recipe's kit.Parts; finish, (options, the model's folder),
      within the last `reserve` seconds; labels, whether the command has --labels.
    """
    parser = make_parser(doc)
    if labels:
        parser.add_argument("--labels", action="store_true", help="train the generator that follows prompts")
    args = parse(parser)
    with tempfile.TemporaryDirectory() as folder:
        if args.rehearse:
            import rehearsal

            rehearsal.make_pack(args, Path(folder))
        prepare_jax(args)
        from kit import MODEL, Clock

        clock = Clock(args.minutes)
        reserve += SPEED_SECONDS if args.speed else 0
        train(args, parts(args), clock, min(reserve, 60 * args.minutes / (2 if args.speed else 8)))
        finish(args, args.out / MODEL)
        if args.speed:
            measure_speed(args, clock)
        clock.say("done")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line and fills in what follows from it."""
    args = parser.parse_args()
    if not args.pack and not args.rehearse:
        parser.error("--pack is needed, the folder that pack.py wrote; or --rehearse")
    args.out = args.out or Path("out/kit")
    args.state = args.state or args.out.with_name(args.out.name + ".state")
    args.minutes = args.minutes or (REHEARSAL_MINUTES if args.rehearse else MINUTES)
    if args.rehearse:
        args.machine = "cpu"
    return args


def prepare_jax(args) -> None:
    """Sets the environment before JAX starts: compilation, its cache, where LPIPS lies."""
    os.environ["ARBISCALE_LPIPS"] = str(args.pack / "lpips")
    if args.machine == "gpu":
        flag = f"--xla_gpu_autotune_level={args.autotune}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    import jax

    from arbiscale_jax.runtime.xla_flags import prefer_eigen

    prefer_eigen()
    args.state.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_disable_most_optimizations", args.rehearse)  # compiles in half the time
    jax.config.update("jax_compilation_cache_dir", str((args.state / "compiled").resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def train(args, parts: Sequence, clock, reserve: float) -> None:
    """Puts the pictures on the device and trains the parts."""
    import jax
    from kit import Kit

    from arbiscale_jax.data import synthesis
    from arbiscale_jax.training.batches import vocabulary

    clock.say(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, {os.cpu_count()} cores")
    config = parts[-1].config  # the last stage knows the labels, if there are any
    store = jax.device_put(synthesis.store_from_config(config.data, vocabulary(config)))
    clock.say(f"{len(store.tiles)} tiles, {store.tiles.nbytes / 1e6:.0f} MB")
    Kit(store, args.out, args.state, clock).run(list(parts), reserve)


def measure_speed(args, clock) -> None:
    """Writes OUT/speed.md; what would begin after the clock's end is left out there."""
    import speed

    minutes = max(0.0, clock.end - clock.now()) / 60
    clock.say(f"speed: {minutes:.1f} minutes are left")
    options = ["--only", "b,a", "--minutes", str(minutes), "--output", str(args.out / "speed.md")]
    speed.main([*options, "--quick"] if args.rehearse else options)


def join_sheets(paths: Sequence[Path], output: Path) -> None:
    """Stacks pictures of one width into one JPEG."""
    import numpy as np
    from PIL import Image

    rows = []
    for path in paths:
        with Image.open(path) as image:
            rows.append(np.asarray(image.convert("RGB")))
    Image.fromarray(np.concatenate(rows)).save(output, quality=92)
