"""EDSR, RDN and LIIF: parity with PyTorch, published sizes, the fast path against the definition, bad checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from arbiscale_jax import UserError, models
from arbiscale_jax.baselines import edsr, liif_sr, rdn
from arbiscale_jax.interop import liif_layout as layouts
from arbiscale_jax.interop.checkpoint_files import read_state_dict
from arbiscale_jax.interop.layout import Entry

torch = pytest.importorskip("torch")

import reference_baselines as reference  # noqa: E402
from reference_networks import Weights  # noqa: E402

HIDDEN = (16, 12)
TINY = {  # the networks of the torch side, and what their checkpoints should be read as
    "edsr": (dict(blocks=2, channels=8), dict(encoder_name="edsr", channels=8, blocks=2, hidden=HIDDEN)),
    "rdn": (
        dict(blocks=2, channels=8, convs=3, growth=4),
        dict(encoder_name="rdn", channels=8, blocks=2, convs=3, growth=4, hidden=HIDDEN),
    ),
}
# of 6 x 7 pixels: x1, barely more, x3 (on the centres of cells), x2.2 and x3.9, x4.3, less than x1
SIZES = [(6, 7), (7, 9), (18, 21), (13, 27), (26, 30), (5, 3)]
LR = np.random.default_rng(0).uniform(-1, 1, (2, 6, 7, 3)).astype(np.float32)


class Case:
    """A tiny LIIF on both sides; the state dict has NumPy arrays."""

    @torch.no_grad()
    def __init__(self, name):
        sizes, self.fields = TINY[name]
        self.weights = Weights()
        self.feat = getattr(reference, name)(self.weights, torch.tensor(LR).permute(0, 3, 1, 2), **sizes)
        self.wanted = {size: reference.liif(self.weights, self.feat, size, HIDDEN).numpy() for size in SIZES}
        self.state = {k: v.numpy() for k, v in self.weights.items()}
        self.loaded, self.params = layouts.load_liif(self.state)
        self.module = liif_sr.LiifSR(**self.loaded)

    def apply(self, *args, method="__call__"):
        return self.module.apply({"params": self.params}, *args, method=method)


@pytest.fixture(scope="module", params=TINY)
def case(request):
    return Case(request.param)


@pytest.fixture(scope="module")
def features(case):
    return jax.jit(lambda lr: case.apply(lr, method="features"))(LR)


def test_the_sizes_are_read_from_the_shapes(case):
    assert case.loaded == case.fields


@pytest.mark.parametrize("size", SIZES)
def test_renders_agree_with_pytorch(case, features, size):
    rows, cols = models.axis(6, size[0]), models.axis(7, size[1])
    found = case.apply(features, rows, cols, method="render")
    np.testing.assert_allclose(found, case.wanted[size], atol=1e-4)


def test_the_encoder_agrees_with_pytorch(case):
    module = {"edsr": edsr.EdsrEncoder, "rdn": rdn.RdnEncoder}[case.fields["encoder_name"]]
    sizes = {k: v for k, v in case.fields.items() if k not in ("encoder_name", "hidden")}
    found = jax.jit(module(**sizes).apply)({"params": case.params["encoder"]}, LR)
    np.testing.assert_allclose(found, case.feat.permute(0, 2, 3, 1), atol=1e-4)


def test_calling_the_module_encodes_and_renders(case):
    found = jax.jit(lambda lr: case.apply(lr, (13, 27)))(LR)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, case.wanted[13, 27], atol=1e-4)


@pytest.mark.parametrize("size", [(6, 7), (18, 21), (13, 27)])
def test_the_fast_path_equals_the_per_coordinate_definition(case, features, size):
    rows, cols = models.axis(6, size[0]), models.axis(7, size[1])
    fast = case.apply(features, rows, cols, method="render")[0]
    y, x = (i.ravel() for i in np.indices(size))
    rows, cols = (models.Axis(a.index[:, i], a.rel[:, i], a.cell) for a, i in ((rows, y), (cols, x)))
    slow = jax.jit(lambda lr: case.apply(lr, rows, cols, method="points"))(LR[0])
    np.testing.assert_allclose(fast.reshape(-1, 3), slow, atol=1e-5)


def test_a_window_is_a_part_of_the_whole(case, features):
    rows, cols = models.axis(6, 26, 5, 11), models.axis(7, 30, 20, 10)
    window = case.apply(features, rows, cols, method="render")
    np.testing.assert_allclose(window, case.wanted[26, 30][:, 5:16, 20:30], atol=1e-4)


def test_unfolding_is_pytorchs():
    x = np.random.default_rng(1).normal(size=(2, 5, 4, 3)).astype(np.float32)
    wanted = torch.nn.functional.unfold(torch.tensor(x).permute(0, 3, 1, 2), 3, padding=1).reshape(2, 27, 5, 4)
    np.testing.assert_array_equal(liif_sr.unfold(x), wanted.permute(0, 2, 3, 1))


@pytest.mark.parametrize("r", [2, 3])
def test_the_pixel_shuffle_is_pytorchs(r):
    x = np.random.default_rng(2).normal(size=(2, 3, 4, 5 * r * r)).astype(np.float32)
    wanted = torch.nn.functional.pixel_shuffle(torch.tensor(x).permute(0, 3, 1, 2), r)
    np.testing.assert_array_equal(edsr.pixel_shuffle(x, r), wanted.permute(0, 2, 3, 1))


@pytest.mark.parametrize("scale", edsr.SCALES)
@torch.no_grad()
def test_edsr_with_its_tail_agrees_with_pytorch(scale):
    weights, module = Weights(seed=scale), edsr.Edsr(scale, channels=8, blocks=1)
    wanted = reference.edsr(weights, torch.tensor(LR).permute(0, 3, 1, 2), 1, 8, name="")
    wanted = reference.edsr_tail(weights, wanted, scale).permute(0, 2, 3, 1)
    entries = [*layouts.edsr_entries(1, torch=""), Entry("tail.1", ("conv_out",), "conv")]
    entries += [Entry(f"tail.0.{2 * i}", (f"upsample_{i}",), "conv") for i in range(len(edsr.SCALES[scale]))]
    state = {k: v.numpy() for k, v in weights.items()}
    params = layouts.read_entries(entries, layouts.parameter_shapes(module, LR), state, "EDSR")
    np.testing.assert_allclose(jax.jit(module.apply)({"params": params}, LR), wanted, atol=1e-4)


def test_other_scales_of_edsr_and_other_encoders_are_refused():
    with pytest.raises(ValueError, match="the scales 2, 3, 4, got 5"):
        layouts.parameter_shapes(edsr.Edsr(5), LR)
    with pytest.raises(ValueError, match="one of edsr, rdn, got 'swin'"):
        layouts.parameter_shapes(liif_sr.LiifSR("swin"), LR, (6, 7))


def count(module, *args):
    total = {}
    for path, x in layouts.parameter_shapes(module, LR, *args).items():
        total[path[0]] = total.get(path[0], 0) + x.size
    return total


def test_networks_have_the_published_parameter_counts():
    size = (6, 7)
    assert count(liif_sr.LiifSR(), size) == {"encoder": 1_220_416, "liif": 346_883}  # 1.22 M + 0.35 M = 1.6 M
    assert count(liif_sr.LiifSR("rdn"), size) == {"encoder": 21_973_952, "liif": 346_883}  # 22.0 M and 0.35 M
    found = {scale: sum(count(edsr.Edsr(scale)).values()) for scale in edsr.SCALES}
    assert found == {2: 1_369_859, 3: 1_554_499, 4: 1_517_571}  # 1.37 M, 1.55 M, 1.52 M


def test_a_published_file_is_read(tmp_path, case):
    state = {k: v.clone() for k, v in case.weights.items()}
    if case.fields["encoder_name"] == "edsr":
        state |= reference.mean_shift()
    args = {"encoder_spec": {"name": "edsr-baseline", "args": {"no_upsampling": True}}, "imnet_spec": {"name": "mlp"}}
    torch.save({"model": {"name": "liif", "args": args, "sd": state}, "epoch": 1000}, tmp_path / "liif.pth")
    fields, params = layouts.load_liif(read_state_dict(tmp_path / "liif.pth"))
    assert fields == case.fields
    jax.tree.map(np.testing.assert_array_equal, params, case.params)


def test_weights_become_float32_copies(case):
    half = {k: v.astype(np.float16) for k, v in case.state.items()}
    flat = traverse_util.flatten_dict(layouts.load_liif(half)[1])
    assert all(x.dtype == np.float32 and x.flags.owndata and x.flags.c_contiguous for x in flat.values())


def without(state, start):
    return {k: v for k, v in state.items() if not k.startswith(start)}


def last_block(case):
    return {"edsr": "encoder.body.1.body.", "rdn": "encoder.RDBs.1."}[case.fields["encoder_name"]]


def test_a_missing_key_is_named(case):
    for key in case.state:
        with pytest.raises(UserError, match="missing, expected a tensor of the shape .*, found .*"):
            layouts.load_liif(without(case.state, key), "liif.pth")
    first = next(iter(case.state)).removesuffix(".weight")
    with pytest.raises(UserError, match=f"^liif.pth: {first}.bias is missing, .* shape \\(8,\\), found no such key.$"):
        layouts.load_liif(without(case.state, f"{first}.bias"), "liif.pth")
    with pytest.raises(UserError, match="imnet.layers.0.weight is missing, .*channels, inputs.*found .* other keys"):
        layouts.load_liif(without(case.state, "imnet."))
    with pytest.raises(UserError, match="imnet.layers.2.weight is missing"):
        layouts.load_liif(without(without(case.state, "imnet.layers.2"), "imnet.layers.4"))


def test_a_missing_block_or_layer_is_an_error(case):
    for start in (last_block(case), last_block(case).replace("1", "0"), "imnet.layers.4."):
        with pytest.raises(UserError, match="expected .*, found "):
            layouts.load_liif(without(case.state, start))


def test_a_key_of_another_shape_is_named(case):
    for key in case.state:
        with pytest.raises(UserError, match=rf"{key} has another shape, expected \(.*\), found \(0,\)"):
            layouts.load_liif({**case.state, key: np.zeros(0, np.float32)})
    first = next(iter(case.state))
    with pytest.raises(UserError, match=f"{first} has another shape, expected \\(channels, inputs.*, found \\(8,\\)"):
        layouts.load_liif({**case.state, first: np.zeros(8, np.float32)})
    with pytest.raises(UserError, match=r"layers.0.weight has another shape, expected \(16, 76\), found \(16, 12\)"):
        layouts.load_liif({**case.state, "imnet.layers.0.weight": np.zeros((16, 12), np.float32)})  # no unfolding


def test_a_key_of_another_type_is_named(case):
    whole = np.zeros(3, np.int64)
    with pytest.raises(UserError, match="layers.4.bias has another type, expected floating-point, found int64"):
        layouts.load_liif({**case.state, "imnet.layers.4.bias": whole})


def test_an_unknown_key_is_named(case):
    match = rf"tail.0.weight is unknown, expected only the {len(case.state)} keys from .* to imnet.layers.4.bias, found"
    with pytest.raises(UserError, match=match):
        layouts.load_liif({**case.state, "encoder.tail.0.weight": np.zeros((4, 4), np.float32)})


def test_another_encoder_and_an_empty_state_are_errors(case):
    with pytest.raises(UserError, match=r"expected encoder.head.0.weight \(EDSR\) or .*, found .* such as imnet"):
        layouts.load_liif(without(case.state, "encoder."))
    with pytest.raises(UserError, match="found no keys at all"):
        layouts.load_liif({})
