"""Serves the page on which pictures are upscaled, generated and zoomed into: `arbiscale serve`."""

import ipaddress
import os
from importlib.util import find_spec
from pathlib import Path

from absl import flags

import arbiscale_jax
from arbiscale_jax.cli import model_settings, program
from arbiscale_jax.errors import UserError

USAGE = """
  {prog}
  {prog} --model runs/quickstart_sr_align --generator '' --port 8080
  ARBISCALE_TOKEN=... {prog} --host 0.0.0.0 --hostname gpu.example.org"""
TOKEN = "ARBISCALE_TOKEN"  # the environment variable in place of --token
SHORTEST_TOKEN = 16
NEEDED = ("fastapi", "uvicorn")


def main(argv: list[str], prog: str = "arbiscale serve") -> int:
    """Runs the command and returns its exit code."""
    flag_values = _flags()
    if program.wants_help(argv):
        program.print_help(
            f"Serve a page, and an HTTP API, to upscale, generate and zoom.\n\nUsage:{USAGE.format(prog=prog)}",
            flag_values,
            "The server computes for one client after another, a step at a time. It loads nothing from elsewhere.",
        )
        return 0
    program.parse(flag_values, argv)
    opts = program.values(flag_values)
    token = _token(opts)
    if not (opts["model"] or opts["generator"]):
        raise UserError("--model and --generator are both empty; give at least one of them.")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"The server needs {' and '.join(missing)}; install the extra web: pip install -e '.[web]'.")
    store = Path(opts["store"]) if opts["store"] else None
    if store is not None and store.exists() and not (store.is_dir() and os.access(store, os.W_OK)):
        raise UserError(f"--store={store} is no folder that can be written; give another one.")
    models = {task: opts[flag] for task, flag in (("upscale", "model"), ("generate", "generator"))}
    for task, name in models.items():
        if name and "baseline" in model_settings.read({"model": name}, task).config:
            raise UserError(f"--model={name} has no latents to zoom into; give a model that has, such as photos.")
    _serve(opts, token, models)
    return 0


def _serve(opts: dict, token: str, models: dict[str, str]) -> None:
    """Loads the models and serves until the process is told to stop."""
    from arbiscale_jax.web.limits import Limits
    from arbiscale_jax.web.running import Address, run
    from arbiscale_jax.web.site import make_site

    program.start_jax()
    dtype = opts["dtype"] or program.default_dtype()
    upscaler, generator = (arbiscale_jax.load(name, dtype=dtype) if name else None for name in models.values())
    limits = Limits(
        upload_bytes=opts["max-upload"] * 10**6,
        input_pixels=opts["max-pixels"],
        output_pixels=opts["max-output-pixels"],
    )
    store = Path(opts["store"]) if opts["store"] else None
    site = make_site(upscaler, generator, limits, store)
    run(site, Address(opts["host"], opts["port"], token, opts["hostname"]))


def _flags() -> flags.FlagValues:
    f, limit = flags.FlagValues(), 10**9
    known = "a bundled model's name, or the folder of a run or an exported model; '' for none"
    program.define_path("model", "photos", f"The model that upscales: {known}.", f)
    program.define_path("generator", "emoji", f"The model that generates: {known}.", f)
    help_ = "The address to listen at; any other than this machine's own needs a token."
    flags.DEFINE_string("host", "127.0.0.1", help_, flag_values=f)
    help_ = "The port to listen at; 0 takes any that is free."
    flags.DEFINE_integer("port", 8000, help_, lower_bound=0, upper_bound=65535, flag_values=f)
    help_ = f"What clients must send; {SHORTEST_TOKEN} characters or more. ${TOKEN} in its place is seen by fewer."
    flags.DEFINE_string("token", "", help_, flag_values=f)
    help_ = "Names by which the server is called, besides localhost and IP addresses, separated by commas."
    flags.DEFINE_list("hostname", [], help_, flag_values=f)
    help_ = "The folder for pictures and results, which a later start finds again; default: a temporary one."
    program.define_path("store", None, help_, f)
    help_ = "Largest file that is uploaded, in megabytes."
    flags.DEFINE_integer("max-upload", 50, help_, lower_bound=1, upper_bound=10_000, flag_values=f)
    help_ = "Largest number of pixels of an input."
    flags.DEFINE_integer("max-pixels", 25_000_000, help_, lower_bound=4, upper_bound=limit, flag_values=f)
    help_ = "Largest number of pixels of a result; windows of larger ones can be looked at all the same."
    flags.DEFINE_integer("max-output-pixels", 100_000_000, help_, lower_bound=1, upper_bound=limit, flag_values=f)
    help_ = "The type in which the networks compute; default: bfloat16 on a GPU, float32 elsewhere."
    flags.DEFINE_enum("dtype", None, ["float32", "tensorfloat32", "bfloat16"], help_, flag_values=f)
    return f


def _token(opts: dict) -> str:
    """Returns the token, "" if there is none; UserError if it is too short, or none where one is needed."""
    token = opts["token"] or os.environ.get(TOKEN, "")
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise UserError(
            f"--token needs {SHORTEST_TOKEN} or more letters, digits and signs without spaces; "
            "python -c 'import secrets; print(secrets.token_urlsafe())' makes one."
        )
    if not token and not _is_own(opts["host"]):
        raise UserError(f"--host={opts['host']} can be reached by others; add --token, or set ${TOKEN}.")
    return token


def _is_own(host: str) -> bool:
    """Tells whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    import sys

    sys.exit(program.run(main))
