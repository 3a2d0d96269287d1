"""Converts PyTorch checkpoints to exported models and back: `python -m arbiscale_jax.interop`, `arbiscale convert`."""

from pathlib import Path

from absl import flags

from arbiscale_jax.cli import program
from arbiscale_jax.errors import UserError

USAGE = """
Convert a PyTorch checkpoint (of the reference implementation, of a CompVis latent-diffusion model, or of LIIF, SR3, IDM
or ESRGAN; .ckpt, .pt, .pth or .safetensors) into an exported model, or a model into a state dict of the reference
implementation.

Usage:
  {prog} --ckpt FILE --arch NAME_OR_FILE --output DIR [--ema] [--overwrite]
  {prog} --model DIR --to-torch FILE [--overwrite]

A whole exported model can be given to --model when sampling and to --config.init_from when training. A CompVis
auto-encoder gives only an encoder, for --config.first_stage with --config.loss.freeze_encoder. A CompVis U-Net can be
given to --config.init_from.
"""


def main(argv: list[str], prog: str = "python -m arbiscale_jax.interop") -> None:
    """Runs the command with the arguments argv, without the program's name."""
    f = flags.FlagValues()
    program.define_path("ckpt", None, "The PyTorch or .safetensors file to read.", f)
    help_ = "Its architecture: a YAML file of CompVis, a JSON file, or the name of an experiment or a method."
    program.define_path("arch", None, help_, f)
    program.define_path("model", None, "Or instead: a bundled model's name, a run or an exported model.", f)
    program.define_path("output", None, "The folder of the exported model to write.", f)
    program.define_path("to-torch", None, "The state dict to write: .ckpt, .pt, .pth or .safetensors.", f)
    flags.DEFINE_bool("ema", False, "Read the U-Net's averaged weights instead of the raw ones.", flag_values=f)
    help_ = "Replace the exported model that --output holds, and the file --to-torch."
    flags.DEFINE_bool("overwrite", False, help_, flag_values=f)
    if program.wants_help(argv):
        from arbiscale_jax.experiments.comparisons import DEFAULTS
        from arbiscale_jax.experiments.published import published

        names = f"Names for --arch: {', '.join(published())}; methods: {', '.join(DEFAULTS)}."
        program.print_help(USAGE.format(prog=prog), f, names)
        return
    program.parse(f, argv)
    opts = program.values(f)
    program.one_of_a_kind(f, "ckpt", "model")
    if not (opts["ckpt"] or opts["model"]):
        raise UserError("Give --ckpt, a PyTorch file to read, or --model, a model to write as one.")
    if not (opts["output"] or opts["to-torch"]):
        raise UserError("Give --output, the folder of the exported model, or --to-torch, the PyTorch file to write.")
    if opts["ckpt"] and not opts["arch"]:
        raise UserError(
            "Give --arch, a YAML or JSON file with the checkpoint's architecture, or a published experiment's name."
        )
    if opts["model"] and (opts["arch"] or opts["ema"] or opts["output"]):
        raise UserError("--arch, --ema and --output belong to --ckpt; with --model give --to-torch alone.")
    if opts["to-torch"]:
        from arbiscale_jax.interop.checkpoint_files import check_output_file

        check_output_file(Path(opts["to-torch"]), opts["overwrite"])

    program.start_jax()
    if opts["ckpt"]:
        from arbiscale_jax.interop.conversion import checkpoint_to_folder

        switches = {name: opts[name] for name in ("ema", "overwrite")}
        model = checkpoint_to_folder(opts["ckpt"], opts["arch"], opts["output"], **switches, say=print)
    else:
        import arbiscale_jax as aj

        model = aj.load(opts["model"])
    if opts["to-torch"]:
        from arbiscale_jax.inference import Model
        from arbiscale_jax.interop import save_torch

        if not isinstance(model, Model):
            raise UserError(f"{opts['model'] or opts['ckpt']} has no counterpart in the reference implementation.")
        path = save_torch(model, opts["to-torch"], overwrite=opts["overwrite"])
        print(f"wrote {path}")
