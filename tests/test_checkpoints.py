"""Other people's files: any architecture of the reference's, Lightning's extras, traps, CompVis layouts, and back."""

import argparse
import collections
import enum
import functools
import json
import os
import pickle
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import waiting
from image_files import pixels
from PIL import Image

import arbiscale_jax as aj
from arbiscale_jax import UserError, interop, models
from arbiscale_jax.artifacts import storage
from arbiscale_jax.cli import convert, program, sample, train
from arbiscale_jax.experiments import get_base_config
from arbiscale_jax.interop import layout, torch_checkpoint
from arbiscale_jax.interop.ldm_schedule import schedule_buffers

torch = pytest.importorskip("torch")
import reference_networks as ref  # noqa: E402  (needs torch)

pytestmark = pytest.mark.usefixtures("one_device")
HERE = Path(__file__).parent / "data"
ARCH = json.loads((HERE / "tiny_sr.json").read_text())


def make_arch(first_stage=(), unet=(), liif=(), conditional=False):
    """A small architecture; f = 2 and one level of U-Net unless said."""
    first = dict(double_z=False, z_channels=3, resolution=16, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 1])
    first |= dict(num_res_blocks=1, attn_resolutions=[], dropout=0.0) | dict(first_stage)
    z = first["z_channels"]
    net = dict(image_size=8, in_channels=z * (1 + conditional), out_channels=z, model_channels=32, num_res_blocks=1)
    net |= dict(channel_mult=[1], attention_resolutions=[], num_head_channels=32) | dict(unet)
    return dict(
        first_stage=first,
        liif=dict(hidden_list=[16], cell_decode=True, local_ensemble=True) | dict(liif),
        unet={k: v for k, v in net.items() if v is not None},
        conditional=conditional,
        timesteps=1000,
        linear_start=0.0015,
        linear_end=0.0195,
        inp_size=16,
        lr_size=8 if conditional else None,
    )


VARIANTS = {
    "scale-shift, up and down blocks, heads, attention in D": make_arch(
        dict(double_z=True, z_channels=5, resolution=32, ch_mult=[1, 2, 2], attn_resolutions=[8, 32]),
        dict(
            channel_mult=[2, 1],
            attention_resolutions=[1],
            num_head_channels=None,
            num_heads=2,
            use_scale_shift_norm=True,
            resblock_updown=True,
        ),
        dict(hidden_list=[16, 24]),
    ),
    "condition, blocks by level, no ensemble, no attention in E": make_arch(
        dict(z_channels=2, ch_mult=[2, 1], num_res_blocks=2, attn_type="none"),
        dict(channel_mult=[1, 2], attention_resolutions=[2], num_head_channels=16, num_res_blocks=[1, 2]),
        dict(hidden_list=[16, 8, 16], cell_decode=False, local_ensemble=False),
        conditional=True,
    ),
}
SHAPES_ONLY = {
    "one level": make_arch(dict(ch_mult=[3], z_channels=1), dict(num_head_channels=96, model_channels=96)),
    "deep": make_arch(
        dict(ch_mult=[1, 1, 3, 2], num_res_blocks=2, attn_resolutions=[4, 2], double_z=True, z_channels=64),
        dict(channel_mult=[1, 2, 2, 4], attention_resolutions=[1, 2, 4, 8], num_head_channels=-1, num_heads=8),
    ),
    "up and down blocks without scale-shift": make_arch(
        unet=dict(channel_mult=[1, 2, 3], attention_resolutions=[4], resblock_updown=True, num_res_blocks=3),
        conditional=True,
    ),
}


def save(path, state, **others):
    torch.save({"state_dict": dict(state), **others}, path)
    return path


def close(found, wanted, what):
    wanted = np.moveaxis(wanted.numpy(), 1, -1) if what != "decode" else wanted.numpy()
    assert np.abs(np.asarray(found) - wanted).max() < 1e-4 * wanted.std(), what


def leaves_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# --- any architecture ---


@pytest.mark.parametrize("name", VARIANTS)
def test_another_architecture_computes_what_torch_computes(name, tmp_path):
    arch = VARIANTS[name]
    w = ref.whole_model(arch)
    model = interop.load_torch(save(tmp_path / "model.ckpt", w), arch)
    x = torch.rand(1, 3, 24, 16, generator=w.rng) * 2 - 1
    with torch.no_grad():
        moments = ref.encode(w, x, arch["first_stage"])
        mean, *log_var = moments.chunk(2, 1) if arch["first_stage"]["double_z"] else (moments,)
        rgb = ref.liif(w, ref.features(w, mean, arch["first_stage"]), (19, 13), arch["liif"])
        z = torch.randn(1, arch["unet"]["in_channels"], 4, 6, generator=w.rng)
        eps = ref.unet(w, z, torch.tensor([321]), arch["unet"])
    found = model.posterior(np.moveaxis(x.numpy(), 1, -1))
    close(found[0], mean, "mean")
    assert (found[1] is None) == (not log_var)
    for part in log_var:
        close(found[1], part.clamp(-30, 20), "log_var")
    close(model.decode(found[0], (19, 13)), rgb, "decode")
    z = np.moveaxis(z.numpy(), 1, -1)
    c = arch["first_stage"]["z_channels"]
    close(model.denoise(z[..., :c], 321, z[..., c:] if arch["conditional"] else None), eps, "eps")


@pytest.mark.parametrize("name", SHAPES_ONLY)
def test_another_architecture_loads_and_returns_bit_for_bit(name, tmp_path):
    arch = SHAPES_ONLY[name]
    w = ref.whole_model(arch)
    model = interop.load_torch(save(tmp_path / "model.ckpt", w), arch)
    state = interop.state_dict(model)
    assert all(np.array_equal(state[key], value.numpy()) for key, value in w.items())


@pytest.mark.parametrize("name", [n for n in interop.published() if n not in ("lsun_bedroom", "lsun_tower_sr")])
def test_every_published_architecture_has_the_references_names_and_shapes(name):
    arch = interop.read_arch(name)
    wanted = {key: tuple(x.shape) for key, x in ref.whole_model(arch, device="meta", side=64).items()}
    model = interop.model_config(arch)
    found = {}
    for prefix, tree, entries in [
        ("first_stage_model.", "first_stage", layout.first_stage_entries(model)),
        ("model.diffusion_model.", "unet", layout.unet_entries(model)),
    ]:
        shapes = torch_checkpoint.expected_shapes(model, tree)
        for entry in entries:
            found |= {prefix + key: x.shape for key, x in layout.to_torch(entry, shapes).items()}
    assert found == wanted


def test_published_names_cover_the_table_and_share_what_it_shares():
    archs = interop.published()
    names = "ffhq lsun_bedroom lsun_church faces_sr lsun_bedroom_sr lsun_tower_sr div2k_sr df2k_sr"
    assert set(archs) == set(names.split())
    assert archs["ffhq"] == archs["lsun_bedroom"] and archs["lsun_bedroom_sr"] == archs["lsun_tower_sr"]
    for name, arch in archs.items():
        config = interop.model_config(json.loads(json.dumps(arch)))
        assert config["condition"]["enabled"] == name.endswith("_sr"), name
    base, config = get_base_config().model.to_dict(), models.complete(config)
    for part in ("first_stage", "liif", "unet", "schedule", "condition"):
        assert set(config[part]) == set(base[part])  # else training refuses a converted model as another architecture
    assert interop.model_config(archs["faces_sr"])["condition"]["upsampling"] == 8
    with pytest.raises(UserError, match="ffqh cannot be read.*names ffhq, lsun_bedroom"):
        interop.read_arch("ffqh")


# --- Lightning's extras and traps ---


@pytest.fixture(scope="module")
def state():
    return torch.load(HERE / "tiny_sr.ckpt", weights_only=True)["state_dict"]


@pytest.fixture
def foreign(monkeypatch):
    """A package that is there while a file is written and gone when it is read."""
    module = types.ModuleType("foreign_package")

    class Hyper:
        def __init__(self):
            self.learning_rate = 1e-4

    class Slotted:
        __slots__ = ("a", "__dict__")

        def __getstate__(self):
            return ("any", "state")

        def __setstate__(self, state):
            raise AssertionError("foreign code ran")

    class Settings(dict):
        pass

    class Steps(list):
        pass

    Mode = enum.Enum("Mode", "MIN MAX")
    Mode.__reduce_ex__ = lambda self, protocol: (Mode, (self.value,))  # as from Python 3.11.4 on; before by getattr
    Point = collections.namedtuple("Point", "x y")

    def run(path):
        Path(path).write_text("ran")

    class Caller:
        def __init__(self, *call):
            self.call = call

        def __reduce__(self):
            return self.call[0], self.call[1:]

    for thing in (Hyper, Slotted, Settings, Steps, Mode, Point, run, Caller):
        thing.__module__, thing.__qualname__ = "foreign_package", thing.__name__
        setattr(module, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, "foreign_package", module)
    return module


def test_a_lightning_file_with_foreign_classes_loads_and_imports_nothing(tmp_path, state, foreign, monkeypatch):
    layer = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    adam.step()
    scheduler = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0)
    slotted, settings = foreign.Slotted(), foreign.Settings(a=1)
    slotted.a, settings.extra = 3, "state beside the items"
    path = save(
        tmp_path / "last.ckpt",
        state,
        epoch=3,
        callbacks={foreign.Hyper: {"best": np.float64(0.1), "mode": foreign.Mode.MIN}, "paths": [Path("a/b")]},
        optimizer_states=[adam.state_dict()],
        lr_schedulers=[scheduler.state_dict()],
        hyper_parameters={
            "hyper": foreign.Hyper(),
            "slotted": slotted,
            "settings": settings,
            "steps": foreign.Steps([1, 2]),
            "point": foreign.Point(1, foreign.Hyper()),
            "defaults": collections.defaultdict(list, a=[1]),
            "array": np.arange(3),
            "args": argparse.Namespace(lr=1e-4),
            "function": foreign.run,  # named, not called
            "partial": functools.partial(foreign.run, 1),
            "kinds": frozenset([1]),
            "size": torch.Size([1]),
        },
    )
    monkeypatch.delitem(sys.modules, "foreign_package")
    allowed = set(torch.serialization.get_safe_globals())
    found, wanted = interop.load_torch(path, ARCH), interop.load_torch(HERE / "tiny_sr.ckpt", ARCH)
    assert leaves_equal(found.params, wanted.params)
    assert "foreign_package" not in sys.modules and set(torch.serialization.get_safe_globals()) == allowed


CALLS = {
    "os.system": lambda m, trap: (os.system, f"touch {trap}"),
    "a shell": lambda m, trap: (subprocess.Popen, ["touch", trap]),
    "eval": lambda m, trap: (eval, f"open({trap!r}, 'w')"),
    "an import": lambda m, trap: (__import__, "foreign_package"),
    "a method": lambda m, trap: (getattr, m.Hyper, "__init__"),
    "a foreign function": lambda m, trap: (m.run, trap),
    "a nested pickle": lambda m, trap: (pickle.loads, pickle.dumps(1)),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_pickle_that_calls_a_function_is_refused_and_runs_nothing(call, tmp_path, state, foreign, monkeypatch):
    trap = tmp_path / "ran"
    path = tmp_path / "bad.ckpt"
    save(path, state, hyper_parameters={"a": [foreign.Caller(*CALLS[call](foreign, str(trap)))]})
    monkeypatch.delitem(sys.modules, "foreign_package")
    with pytest.raises(UserError, match=r"bad.ckpt is refused.*call the function \w+\.\w+"):
        interop.load_torch(path, ARCH)
    assert not trap.exists() and "foreign_package" not in sys.modules


def test_a_class_of_the_file_is_made_without_its_constructor(tmp_path, state, foreign, monkeypatch):
    path = save(tmp_path / "m.ckpt", state, x=foreign.Caller(foreign.Hyper, str(tmp_path / "ran")))
    monkeypatch.delitem(sys.modules, "foreign_package")
    assert interop.load_torch(path, ARCH).factor == 2


def enumerations(protocol):
    """A member of an enumeration and one of a nested class, pickled as Python 3.11.0 to 3.11.3 does: by getattr."""
    module = types.ModuleType("foreign_package")
    outer = type("Outer", (), {"__module__": "foreign_package", "__qualname__": "Outer"})
    for name, place in (("Mode", "Mode"), ("Inner", "Outer.Inner")):
        kind = enum.Enum(name, "MIN MAX", module="foreign_package", qualname=place)
        kind.__reduce_ex__ = lambda self, protocol: (getattr, (self.__class__, self.name))
        setattr(outer if place != name else module, name, kind)
    module.Outer = outer
    return module


def test_members_of_enumerations_that_pickle_by_getattr_are_left_alone(tmp_path, state, monkeypatch):
    module = enumerations(2)
    monkeypatch.setitem(sys.modules, "foreign_package", module)
    hyper = {"mode": module.Mode.MIN, "again": module.Mode.MIN, "inner": module.Outer.Inner.MAX}
    path = save(tmp_path / "m.ckpt", state, hyper_parameters=hyper)
    monkeypatch.delitem(sys.modules, "foreign_package")
    wanted = interop.load_torch(HERE / "tiny_sr.ckpt", ARCH)
    assert leaves_equal(interop.load_torch(path, ARCH).params, wanted.params)
    assert "foreign_package" not in sys.modules


def rezipped(source, path, change=lambda name, data: data, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return path


def test_an_archive_that_claims_more_than_it_has_is_refused(tmp_path, state):
    source = save(tmp_path / "m.ckpt", state)
    with pytest.raises(UserError, match="bomb.ckpt is refused: its member .* is compressed and would unpack to"):
        interop.load_torch(rezipped(source, tmp_path / "bomb.ckpt", compression=zipfile.ZIP_DEFLATED), ARCH)

    def grown(name, data):  # the number of values in the storage of the first bias of 32 values
        return data.replace(b"cpuq\x08K tq", b"cpuq\x08J\xff\xff\xff\x7ftq", 1) if name.endswith("data.pkl") else data

    torch.save({"state_dict": {"a": torch.zeros(32)}}, tmp_path / "one.ckpt")
    with pytest.raises(UserError, match="claims 8589934588 bytes of storage, of which the file has 128"):
        interop.load_torch(rezipped(tmp_path / "one.ckpt", tmp_path / "claims.ckpt", grown), ARCH)
    wide = state | {"loss.w": torch.zeros(1).expand(10**12)}  # is not read, since nothing uses it
    interop.load_torch(save(tmp_path / "wide.ckpt", wide), ARCH)


@pytest.mark.parametrize(
    "content",
    [
        lambda s: {"model": {"module": s}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(1)}}}},
        lambda s: {"params": s, "params_ema": {key: value + 1 for key, value in s.items()}},
        lambda s: {"ema": s},
        lambda s: {"epoch": 3, "model_state_dict": {f"module._orig_mod.{key}": value for key, value in s.items()}},
        lambda s: {key.replace("unet.", "unet.").replace(".out.", ".module.out."): value for key, value in s.items()},
    ],
    ids=["model/module", "params", "ema", "DDP of compiled", "a wrapped layer"],
)
def test_weights_are_found_inside_wrappers(content, tmp_path, state):
    torch.save(content(state), tmp_path / "m.pth")
    found, wanted = interop.load_torch(tmp_path / "m.pth", ARCH), interop.load_torch(HERE / "tiny_sr.ckpt", ARCH)
    assert leaves_equal(found.params, wanted.params)


def test_averaged_weights_may_lie_beside_the_raw_ones(tmp_path, state):
    averaged = {key: value + 1 for key, value in state.items() if key.startswith("model.")}
    torch.save({"state_dict": state, "ema": averaged}, tmp_path / "m.ckpt")
    raw, mean = (interop.load_torch(tmp_path / "m.ckpt", ARCH, ema=ema).params for ema in (False, True))
    np.testing.assert_array_equal(mean["unet"]["conv_in"]["bias"], raw["unet"]["conv_in"]["bias"] + 1)
    assert leaves_equal(raw["first_stage"], mean["first_stage"])
    undotted = {
        torch_checkpoint.averaged_name("_orig_mod." + k.removeprefix("model.diffusion_model.")): v
        for k, v in averaged.items()
    }
    compiled = interop.load_torch(save(tmp_path / "c.ckpt", state | undotted), ARCH, ema=True)
    assert leaves_equal(compiled.params["unet"], mean["unet"])
    doubled = state | {f"module.{UNET}": state[UNET] + 1}
    with pytest.raises(UserError, match=f"holds {UNET} twice, once as module.{UNET}"):
        interop.load_torch(save(tmp_path / "d.ckpt", doubled), ARCH)


def test_buffers_of_samplers_and_of_any_precision_are_known(tmp_path, state):
    buffers = {k: torch.from_numpy(v) for k, v in schedule_buffers(interop.model_config(ARCH)["schedule"]).items()}
    names = "sigmas alphas alphas_prev sqrt_one_minus_alphas sigmas_for_original_num_steps"
    buffers |= {f"ddim_{name}": torch.zeros(200) for name in names.split()}
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        whole = {key: value.to(dtype) for key, value in (state | buffers).items()}
        found = interop.read_checkpoint(save(tmp_path / "m.ckpt", whole), ARCH)
        wanted = state[UNET].to(dtype).float().numpy()
        np.testing.assert_array_equal(found.params["unet"]["conv_out"]["bias"], wanted)
        assert found.params["unet"]["conv_out"]["bias"].dtype == np.float32
    whole["betas"] = torch.linspace(0.0015**0.5, 0.012**0.5, 1000).square().to(torch.bfloat16)
    with pytest.raises(UserError, match="betas in the file .* is not the schedule"):
        interop.load_torch(save(tmp_path / "m.ckpt", whole), ARCH)


@pytest.mark.parametrize(
    "form", ["safetensors", "SafeTensors", "half", "bfloat16", "double", "old torch file", "bare", "model/sd"]
)
def test_other_ways_of_storing_the_same_weights(form, tmp_path, state):
    from safetensors.torch import save_file

    suffix = {"safetensors": ".safetensors", "bfloat16": ".safetensors", "SafeTensors": ".SafeTensors"}.get(form, ".PT")
    path = tmp_path / f"m{suffix}"
    dtype = {"half": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}.get(form, torch.float32)
    state = {key: value.to(dtype) for key, value in state.items()}
    if suffix != ".PT":
        save_file(state, path)
    else:
        whole = {"bare": state, "model/sd": {"model": {"sd": state}}}.get(form, {"state_dict": state})
        torch.save(whole, path, _use_new_zipfile_serialization=form != "old torch file")
    found = interop.load_torch(path, ARCH).params["first_stage"]["encoder"]["conv_in"]["kernel"]
    wanted = state["first_stage_model.encoder.0.conv_in.weight"].float().permute(2, 3, 1, 0)
    np.testing.assert_array_equal(found, wanted.numpy())
    if suffix != ".PT":
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(UserError, match="cannot be read as a safetensors file"):
            interop.load_torch(path, ARCH)


ENCODER, UNET = "first_stage_model.encoder.0.conv_in.weight", "model.diffusion_model.out.2.bias"


def change(state, **changes):
    state = dict(state)
    for key, new in changes.items():
        value = state.pop({"encoder": ENCODER, "unet": UNET}[key])
        if isinstance(new, str):
            state[new] = value
        elif new is not None:
            state[{"encoder": ENCODER, "unet": UNET}[key]] = new(value)
    return state


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda s: change(s, encoder=None), f"the key {ENCODER} is missing; does arch describe this file\\?"),
        (lambda s: change(s, unet=UNET + "es"), f"{UNET} is missing.*{UNET}es is unexpected"),
        (lambda s: change(s, encoder=lambda x: x[:16]), f"{ENCODER} .16, 3, 3, 3. does not fit .* .32, 3, 3, 3."),
        (lambda s: s | {"decoder_x.weight": torch.ones(1)}, "decoder_x.weight is unexpected"),
        (lambda s: s | {"first_stage_model.quantize.embedding.weight": torch.ones(1)}, "quantize.* is unexpected"),
        (lambda s: s | {"betas": torch.linspace(0.0015**0.5, 0.012**0.5, 1000) ** 2}, "betas .*to 0.012.* not the sch"),
        (lambda s: s | {"alphas_cumprod": torch.ones(4000)}, "alphas_cumprod in the file is not the schedule"),
        (lambda s: s | {"scale_factor": torch.tensor(0.0)}, "scale_factor must be one number > 0"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("model.")}, "holds no U-Net.*partial=True"),
        (lambda s: {"a": 1}, "holds no tensors"),
        (lambda s: change(s, encoder=lambda x: x.to(torch.int8)), f"{ENCODER} holds values of the type int8"),
    ],
    ids=[
        "missing",
        "renamed",
        "shape",
        "unexpected",
        "codebook",
        "schedule",
        "steps",
        "scale",
        "no U-Net",
        "no tensors",
        "quantised",
    ],
)
def test_a_key_that_is_wrong_is_named(make, match, tmp_path, state):
    with pytest.raises(UserError, match=match):
        interop.load_torch(save(tmp_path / "m.ckpt", make(state)), ARCH)


def test_what_lies_beside_the_weights_is_left_alone(tmp_path, state):
    buffers = {k: torch.from_numpy(v) for k, v in schedule_buffers(interop.model_config(ARCH)["schedule"]).items()}
    names = "loss.perceptual.w cond_stage_model.a first_stage_model.loss.logvar logvar model_ema.decay lvlb_weights"
    beside = {name: torch.ones(2) for name in names.split()} | {"first_stage_model.model_ema.encoder0w": torch.ones(1)}
    found = interop.read_checkpoint(save(tmp_path / "m.ckpt", state | buffers | beside), ARCH)
    assert set(found.params) == {"first_stage", "unet"}
    assert any("U-Net -> unet: " in line for line in found.report)
    assert "not used: the schedule, which agrees with arch (12 tensors)" in found.report
    averaged = {torch_checkpoint.averaged_name("out.2.bias"): torch.ones(3)}
    with pytest.raises(UserError, match="the key model_ema.diffusion_modeltime_embed0weight is missing"):
        interop.load_torch(save(tmp_path / "m.ckpt", state | averaged), ARCH, ema=True)


@pytest.mark.parametrize(
    "arch, match",
    [
        (dict(first_stage=dict(ch="32")), "arch.first_stage.ch is a whole number >= 1, got '32'"),
        (dict(first_stage=dict(embed_dim=4)), "embed_dim = 4 must be z_channels = 3"),
        (dict(first_stage=dict(ch_mult=[])), "ch_mult is a list of one"),
        (dict(first_stage=dict(ch=40, ch_mult=[1, 2])), "cannot be built.*num_groups=32"),
        (dict(unet=dict(num_head_channels=24)), "num_head_channels = 24 does not divide the 64 channels"),
        (dict(unet=dict(num_res_blocks=[1])), "num_res_blocks has 1 entries for the 2 of channel_mult"),
        (dict(unet=dict(num_head_channels=-1)), "neither num_heads nor num_head_channels"),
        (dict(unet=dict(use_new_attention_order=True)), "use_new_attention_order = True is not supported"),
        (dict(liif=dict(cell_decode="yes")), "cell_decode is true or false"),
        (dict(timesteps=0), "arch.timesteps is a whole number"),
        (dict(linear_end=1.5), "linear_end < 1"),
        (dict(lr_size=None), "arch.lr_size is None"),
        (dict(unet=7), "arch.unet must be a mapping"),
    ],
)
def test_an_architecture_that_cannot_be_is_one_clear_sentence(arch, match):
    arch = ARCH | {k: {**ARCH[k], **v} if isinstance(v, dict) else v for k, v in arch.items()}
    with pytest.raises(UserError, match=match):
        interop.load_torch(HERE / "tiny_sr.ckpt", arch)


YAML = """
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 15e-4
    linear_end: 0.0155
    image_size: 48
    concat_mode: true
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params: {image_size: 48, in_channels: 6, out_channels: 3, model_channels: 160, attention_resolutions: [16, 8],
               num_res_blocks: 2, channel_mult: [1, 2, 2, 4], num_head_channels: 32}
    first_stage_config:
      target: ldm.models.autoencoder.VQModelInterface
      params:
        embed_dim: 3
        n_embed: 8192
        ddconfig: {double_z: false, z_channels: 3, resolution: 192, in_channels: 3, out_ch: 3, ch: 128,
                   ch_mult: [1, 2, 4], num_res_blocks: 2, attn_resolutions: [], dropout: 0.0}
    cond_stage_config: {target: torch.nn.Identity}
data: {params: {train: {params: {size: 192, downscale_f: 4}}}}
"""


def test_a_yaml_file_of_compvis_describes_the_same_model(tmp_path):
    path = tmp_path / "config.YAML"
    path.write_text(YAML)
    wanted = interop.model_config(interop.read_arch("div2k_sr"))
    assert interop.model_config(interop.read_arch(path)) == wanted
    path.write_text(
        YAML.replace("cond_stage_config: {target: torch.nn.Identity}", "").replace("in_channels: 6", "in_channels: 3")
    )
    assert not interop.model_config(interop.read_arch(path))["condition"]["enabled"]
    encoder = {"double_z": True, "z_channels": 4, "resolution": 256, "ch": 128, "ch_mult": [1, 2, 4, 4]}
    encoder |= {"num_res_blocks": 2, "attn_resolutions": [], "in_channels": 3, "out_ch": 3, "dropout": 0.0}
    path.write_text(json.dumps({"model": {"target": "x", "params": {"embed_dim": 4, "ddconfig": encoder}}}))
    found = interop.model_config(interop.read_arch(path))  # of an auto-encoder alone
    assert found["first_stage"]["ch_mult"] == (1, 2, 4, 4) and found["sampling"]["size"] == 256


@pytest.mark.parametrize(
    "text, match",
    [
        ("a: &x [1]\nb: *x", "is not YAML: it repeats a part by an alias"),
        ("a: [1", "is not YAML: while parsing"),
        ("a: !!python/object/apply:os.system [exit]", "is not YAML: could not determine a constructor"),
        ("- 1", "holds no YAML object"),
        ("model: {params: {unet_config: 3}}", "has no mapping model.params.first_stage_config"),
        ("model: {params: {embed_dim: 3}}", "has no mapping model.params.ddconfig"),
        ("[" * 100_000, "is not YAML"),
        ("#" * 2**20 + "#", "is not YAML: it has more than 1048576 bytes"),
    ],
)
def test_a_yaml_file_that_describes_no_model_is_one_clear_sentence(text, match, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=match):
        interop.read_arch(tmp_path / "a.yaml")


# --- and back ---


@pytest.mark.parametrize("suffix", [".ckpt", ".PTH", ".SafeTensors"])
def test_to_torch_and_back_is_exact(suffix, tmp_path, state):
    model = interop.load_torch(HERE / "tiny_sr.ckpt", ARCH)
    path = interop.save_torch(aj.Model(model.config, model.params, 0.7), tmp_path / f"out{suffix}")
    for ema in (False, True):
        back = interop.load_torch(path, ARCH, ema=ema)
        assert leaves_equal(back.params, model.params) and back.scale_factor == np.float32(0.7)
    if suffix == ".ckpt":
        written = torch.load(path, weights_only=True)["state_dict"]
        assert all(
            torch.equal(written[key], value) and written[key].dtype == value.dtype for key, value in state.items()
        )
        assert written["alphas_cumprod"].shape == (1000,) and [p.name for p in tmp_path.iterdir()] == ["out.ckpt"]


def test_a_first_stage_alone_encodes_renders_and_returns(tmp_path, state):
    prefix = "first_stage_model."
    first = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    model = interop.load_torch(save(tmp_path / "first.ckpt", first | {"loss.w": torch.ones(1)}), ARCH)
    z = model.encode(np.zeros((1, 8, 8, 3)))
    assert model.render(z, (9, 9)).shape == (1, 9, 9, 3)
    with pytest.raises(UserError, match="without a U-Net"):
        model.upscale(np.zeros((4, 4, 3), np.uint8), scale=2)
    written = interop.state_dict(model)
    assert set(written) == set(first) and all(np.array_equal(written[k], v.numpy()) for k, v in first.items())


def test_what_cannot_be_written_is_said(tmp_path):
    model = interop.load_torch(HERE / "tiny_sr.ckpt", ARCH)
    with pytest.raises(UserError, match="does not end in one of .ckpt"):
        interop.save_torch(model, tmp_path / "model.onnx")
    narrow = aj.Model(model.config | {"unet": model.config["unet"] | {"num_groups": 8}}, model.params)
    with pytest.raises(UserError, match="32 groups and this model's unet 8"):
        interop.save_torch(narrow, tmp_path / "m.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        interop.save_torch(model, tmp_path / "file" / "m.safetensors")


# --- CompVis files, and the command line ---

START = make_arch(dict(ch_mult=[1], attn_type="none"), liif=dict(local_ensemble=False, cell_decode=False))


@pytest.fixture(scope="module")
def compvis():
    """A latent-diffusion model of CompVis's: its own auto-encoder's names, and a U-Net with averages."""
    whole, w = ref.whole_model(START), ref.Weights(seed=1)
    with torch.no_grad():
        ref.encode(w, torch.zeros(1, 3, 8, 8), START["first_stage"], "encoder", "quant_conv")
    w |= {"decoder.conv_in.weight": torch.ones(3), "decoder.up.1.upsample.conv.bias": torch.ones(3)}
    w |= {"post_quant_conv.weight": torch.ones(3), "quantize.embedding.weight": torch.ones(9, 3)}
    unet = {key: value for key, value in whole.items() if key.startswith("model.")}
    averaged = {
        torch_checkpoint.averaged_name(k.removeprefix("model.diffusion_model.")): v + 1 for k, v in unet.items()
    }
    inside = {f"first_stage_model.{key}": value for key, value in w.items()}
    return w, unet | averaged | inside | {"scale_factor": torch.tensor(0.5)}


def test_a_compvis_auto_encoder_gives_an_encoder_and_its_model_a_u_net(compvis, tmp_path):
    w, whole = compvis
    x = torch.rand(1, 3, 16, 8) * 2 - 1
    with torch.no_grad():
        wanted = ref.encode(w, x, START["first_stage"], "encoder", "quant_conv")
    for state in (dict(w) | {"loss.discriminator.w": torch.ones(1)}, whole):
        model = interop.load_torch(save(tmp_path / "m.ckpt", state), START, ema=state is whole)
        close(model.posterior(np.moveaxis(x.numpy(), 1, -1))[0], wanted, "mean")
        with pytest.raises(UserError, match="This model has no decoder"):
            model.render(np.zeros((1, 4, 4, 3)), (8, 8))
    bias = model.params["unet"]["conv_out"]["bias"]
    np.testing.assert_array_equal(bias, whole[UNET].numpy() + 1)
    assert model.scale_factor == 0.5
    unet = {key: value for key, value in whole.items() if "first_stage" not in key}
    path = save(tmp_path / "unet.ckpt", unet)
    with pytest.raises(UserError, match="holds no first stage.*partial=True"):
        interop.load_torch(path, START)
    with pytest.raises(UserError, match="has no encoder"):
        interop.load_torch(path, START, partial=True).encode(np.zeros((1, 8, 8, 3)))


def run(command, *argv):
    assert program.run(command, [str(arg) for arg in argv]) == 0


@pytest.fixture
def no_cache(monkeypatch):
    """Leaves the session's compilation cache in place."""
    monkeypatch.setenv("ARBISCALE_CACHE", "")


def test_a_converted_model_samples_and_returns_on_the_command_line(tmp_path, no_cache, capsys):
    folder, photo = tmp_path / "model", tmp_path / "photo.png"
    argv = ["--ckpt", HERE / "tiny_sr.ckpt", "--arch", HERE / "tiny_sr.json", "--output", folder]
    run(convert.main, *argv)
    out = capsys.readouterr().out
    assert "model.diffusion_model.* U-Net -> unet: " in out and f"wrote {folder}: a whole model" in out
    assert program.run(convert.main, [str(arg) for arg in argv]) == 2
    assert f"{folder} holds an exported model already; give --overwrite" in capsys.readouterr().err
    run(convert.main, *argv, "--overwrite")
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(photo)
    argv = [
        "--task=upscale",
        "--model",
        folder,
        "--input",
        photo,
        "--scale=1.5",
        "--steps=1",
        "--output",
        tmp_path / "o",
    ]
    run(sample.main, *argv)
    assert pixels(tmp_path / "o" / "photo_x1.5.png").shape == (6, 9, 3)
    argv = ["--model", folder, "--to-torch", tmp_path / "back.safetensors"]
    (tmp_path / "back.safetensors").write_text("mine")
    assert program.run(convert.main, [str(arg) for arg in argv]) == 2
    assert "back.safetensors exists already; give --overwrite" in capsys.readouterr().err
    assert (tmp_path / "back.safetensors").read_text() == "mine"
    run(convert.main, *argv, "--overwrite")
    back = interop.load_torch(tmp_path / "back.safetensors", ARCH)
    assert leaves_equal(back.params, interop.load_torch(HERE / "tiny_sr.ckpt", ARCH).params)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(
        "from arbiscale_jax.experiments import get_base_config\n"
        "from arbiscale_jax.interop import model_config\n"
        "def get_config(stage):\n"
        "    config = get_base_config()\n"
        f"    config.model.update(model_config({START!r}))\n"
        "    config.stage = stage\n"
        "    config.data.update(image_size=8, target_min=4, target_max=8, target_patch=4, val_num=1)\n"
        "    config.train.update(steps=1, batch_size=2, learning_rate=0.0, ema_decay=0.0, grad_clip=0.0)\n"
        "    return config\n"
    )
    return path


def test_a_frozen_encoder_and_a_u_net_start_train_on_the_command_line(tmp_path, compvis, config_file, no_cache, capsys):
    w, whole = compvis
    encoder, unet, runs = tmp_path / "encoder", tmp_path / "unet", tmp_path / "runs"
    arch = tmp_path / "arch.json"
    arch.write_text(json.dumps(START))
    run(convert.main, "--ckpt", save(tmp_path / "vq.ckpt", w), "--arch", arch, "--output", encoder)
    run(convert.main, "--ckpt", save(tmp_path / "ldm.ckpt", whole), "--arch", arch, "--output", unet, "--ema")
    assert "a start for training (an encoder for" in capsys.readouterr().out
    with pytest.raises(UserError, match="lacks the weights of first_stage/decoder, first_stage/liif"):
        aj.load(encoder)

    def stage(name, workdir, *options):
        return ["--config", f"{config_file}:{name}", "--workdir", runs / workdir, *options]

    # nothing may train or validate with a decoder of random weights
    bad = [stage("diffusion", "x_diffusion", f"--config.first_stage={encoder}")]
    bad += [stage("align", "x_align", f"--config.init_from={unet}")]
    for argv in bad:
        assert program.run(train.main, [str(arg) for arg in argv]) == 2
        assert "lacks the weights of first_stage/decoder, first_stage/liif" in capsys.readouterr().err

    frozen = ["--config.loss.freeze_encoder=True", f"--config.first_stage={encoder}"]
    run(train.main, *stage("first_stage", "x_first_stage", *frozen))
    given = storage.read_weights(encoder)["first_stage"]["encoder"]
    assert leaves_equal(storage.read_frozen(runs / "x_first_stage")["first_stage"]["encoder"], given)
    run(train.main, *stage("diffusion", "x_diffusion", f"--config.init_from={unet}"))
    assert "Keeping the scale_factor" in capsys.readouterr().out
    trained, start = storage.read_weights(runs / "x_diffusion"), storage.read_weights(unet)
    assert leaves_equal(trained["unet"], start["unet"]) and trained["scale_factor"] == np.float32(0.5)
    assert leaves_equal(trained["first_stage"]["encoder"], given)


def test_a_u_net_of_other_heads_is_no_start(tmp_path, compvis, config_file, no_cache, capsys):
    other = START | {"unet": START["unet"] | {"num_head_channels": 16}}
    (tmp_path / "arch.json").write_text(json.dumps(other))
    path = save(tmp_path / "ldm.ckpt", compvis[1])
    run(convert.main, "--ckpt", path, "--arch", tmp_path / "arch.json", "--output", tmp_path / "unet")
    argv = ["--config", f"{config_file}:diffusion", f"--config.init_from={tmp_path / 'unet'}"]
    assert program.run(train.main, [*argv, "--workdir", str(tmp_path / "x_diffusion")]) == 2
    assert "another model.unet.num_head_channels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, match",
    [
        ([], "Give --ckpt"),
        (["--ckpt=a.ckpt", "--output=o"], "Give --arch"),
        (["--ckpt=a.ckpt", "--arch=ffhq"], "Give --output"),
        (["--model=a", "--output=o"], "with --model give --to-torch alone"),
        (["--model=a", "--to-torch=o"], "o does not end in one of .ckpt"),
        (["--ckpt=a.ckpt", "--model=b"], "exclude each other"),
        (["--ckpt=none.ckpt", "--arch=ffhq", "--output=o"], "no checkpoint file none.ckpt"),
        (["--ckpt=none.ckpt", "--arch=ffhq", "--output=full"], "full exists and is not an exported model"),
    ],
)
def test_conversion_refuses_bad_flags(argv, match, tmp_path, monkeypatch, no_cache, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("")
    assert program.run(convert.main, argv) == 2
    assert match in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "arbiscale_jax.interop", "--help"]
    out = waiting.run(command, cwd=HERE.parent.parent, check=True).stdout
    assert "--to-torch" in out and "faces_sr" in out
