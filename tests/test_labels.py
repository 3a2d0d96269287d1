"""Labels of names: words, guidance, prompts, a labelled model from training to the command line, interpolation."""

import json
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import train_on_one_device
from image_files import pixels
from PIL import Image
from toys import leaves_equal, tiny

import arbiscale_jax as aj
from arbiscale_jax import UserError, data, diffusion, images, models
from arbiscale_jax.artifacts import fit, registry, storage
from arbiscale_jax.artifacts.vocabulary import Vocabulary, vocabulary_of
from arbiscale_jax.cli import program, sample
from arbiscale_jax.data import name_labels, synthesis
from arbiscale_jax.data.name_labels import parse_name
from arbiscale_jax.inference.from_noise import enlarge
from arbiscale_jax.inference.given import Blend, Given, draw_noise, guidance_of, guided, slerp_weights
from arbiscale_jax.inference.options import Sampling
from arbiscale_jax.inference.prompts import Request, prompt_of
from arbiscale_jax.inference.sheets import cell_names
from arbiscale_jax.models.label_embedding import word_shares
from arbiscale_jax.training import start
from arbiscale_jax.training.label_config import with_labels
from arbiscale_jax.training.loop import train
from arbiscale_jax.training.stages import denoising
from arbiscale_jax.training.stages.latent import drop_labels
from arbiscale_jax.training.stages.stage import init_first_stage

COLOURS = {"flat__red-square": (250, 10, 10), "round__blue-square": (10, 10, 250)}
CODE = {"architecture": "linear_code", "norm": "none", "double_z": False, "ch": 4, "subcell.blocks": 1}
KNOWN = Vocabulary(("flat", "round"), ("black", "cat", "hat"), 2, ("style=flat cat", "style=round black hat"))


def config(folder, stage="diffusion", **fields):
    """A labelled generator of 4 pixels, whose latents have 2 x 2 cells."""
    own = {"data.source": "folder", "data.root": str(folder), "data.labels": "names", "data.lr_size": 0}
    own |= {"data.val_source": "folder", "data.val_root": str(folder)}  # so that none is held out
    own |= {f"model.first_stage.{name}": value for name, value in CODE.items()} | {"model.liif.hidden": (8,)}
    own |= {"model.condition.enabled": False, "model.sampling.size": 4}
    own |= {"model.sampling.steps": 8, "model.sampling.eta": 0.0}
    # few cells, whose mean says little, and a last time that is not pure noise: a small network needs the label
    own |= {"data.image_size": 4, "model.unet.channel_mult": (1,), "model.schedule.linear_end": 0.006}
    own |= {"data.flip": False, "data.center_crop": True, "loss.label_dropout": 0.1}
    return tiny(stage, **own | fields)


def flat(colour):
    return np.full((1, 4, 4, 3), colour, np.float32) / 127.5 - 1


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """A run that has learnt the two pictures with their labels, through a cache of latents."""
    folder = tmp_path_factory.mktemp("runs")
    first = config(pictures, "first_stage").model.to_dict()
    batch = {"image": np.concatenate([flat(colour) for colour in COLOURS.values()])}
    weights = init_first_stage(models.build_first_stage(first), jax.random.key(0), batch)  # principal components
    registry.write_export(folder / "code", {"model": first}, {"first_stage": weights}, "", np.float32)
    made = config(
        pictures,
        **{"first_stage": str(folder / "code"), "data.latent_cache": str(folder / "latents"), "train.steps": 300},
        **{
            "train.learning_rate": 1e-2,
            "train.log_every": 250,
            "train.ema_decay": 0.9,
            "train.checkpoint_every": 0,
            "train.batch_size": 8,
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        train_on_one_device(patch)
        train(made, folder / "toy_diffusion")
    return folder / "toy_diffusion"


@pytest.fixture(scope="module")
def model(run):
    return aj.load(run)


# --- names ---


@pytest.mark.parametrize(
    "name, style, words",
    [
        ("noto__black-cat.jpg", "noto", ("black", "cat")),
        ("emoji_0/Noto__1st_place-Medal.webp", "noto", ("1st", "place", "medal")),
        ("drawn/cat cat (2).png", "drawn", ("cat",)),
        ("00012.png", "", ()),
        ("a/my set/chat-noir_été.png", "my-set", ("chat", "noir", "été")),
    ],
)
def test_names_give_a_style_and_words(name, style, words):
    assert parse_name(name) == (style, words)


def test_a_vocabulary_keeps_the_most_frequent_words(tmp_path):
    for name in ("a__cat-tail", "b__cat", "a__dog-tail", "b__owl"):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
    source = data.make_source("folder", str(tmp_path), "all")
    found = data.make_vocabulary(source, 3)
    assert found[:3] == (("a", "b"), ("cat", "dog", "tail"), 2)  # dog comes before owl
    assert sorted(found.examples) == ["style=a cat tail", "style=a dog tail", "style=b", "style=b cat"]
    assert found.encode("b", ("tail", "owl", "cat")).tolist() == [2, 3, 1]
    assert [found.read(text).tolist() for text in ("", "Style=A  dog")] == [[0, 0, 0], [1, 2, 0]]
    assert data.make_vocabulary(source, 0)[:3] == (("a", "b"), (), 0)


def test_names_that_say_nothing_are_refused(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "0001.png")
    with pytest.raises(UserError, match="neither styles nor words in the names of the 1 training pictures"):
        data.make_vocabulary(data.make_source("folder", str(tmp_path), "all"), 9)


@pytest.mark.parametrize(
    "prompt, match",
    [
        ("cta", "knows no word 'cta'; near are cat"),
        ("style=flot cat", "knows no style 'flot'; near are flat"),
        ("flat cat", "knows no word 'flat'; a style is written style=flat"),
        ("zzzzzz", "knows no word 'zzzzzz'; it knows others, such as black, cat, hat"),
        ("black cat hat", "has 3 words, and this model takes 2"),
        ("style=flat style=round", "names 2 styles"),
        (3, "A prompt is a text such as"),
    ],
)
def test_what_a_model_does_not_know_is_named_with_what_is_near(prompt, match):
    with pytest.raises(UserError, match=match):
        KNOWN.read(prompt)


def test_labels_are_drawn_by_seed_and_number_and_prompts_take_turns():
    request = Request(Sampling(1, "ddim", 0.0, 0.0, 0, -1.0), 5)
    drawn = [prompt_of(KNOWN, request, i) for i in range(40)]
    assert drawn == [prompt_of(KNOWN, request, i) for i in range(40)] and set(drawn) == set(KNOWN.examples)
    assert drawn != [prompt_of(KNOWN, request._replace(seed=2**80), i) for i in range(40)]
    turns = request._replace(prompt=["cat", "hat"])
    assert [prompt_of(KNOWN, turns, i) for i in (0, 1, 4)] == ["cat", "hat", "cat"]


# --- the network and its guidance ---


def test_words_share_the_mean_and_nothing_has_a_vector_of_its_own():
    shares = word_shares(jnp.array([[3, 0, 5], [0, 0, 0], [0, 2, 0]]))
    np.testing.assert_array_equal(shares, [[0.5, 0, 0.5], [1, 0, 0], [0, 1, 0]])


def test_parts_of_labels_are_dropped_at_their_rate():
    keys = jax.random.split(jax.random.key(0), 20_000)
    label = jnp.tile(jnp.array([[4, 7, 0]]), (len(keys), 1))
    kept = drop_labels(keys, label, 0.2)
    style, words = np.mean(kept[:, 0] > 0), np.mean(kept[:, 1] > 0)
    assert abs(style - 0.64) < 0.02 and abs(words - 0.64) < 0.02  # neither the whole nor this part
    assert abs(np.mean((kept[:, 0] > 0) & (kept[:, 1] > 0)) - 0.512) < 0.02
    np.testing.assert_array_equal(drop_labels(keys[:50], label[:50], 0.0), label[:50])


def guide(scale, t, interval=(0.2, 0.8), same=False):
    """Guided eps where eps(label) is z and eps(nothing) is 3 z, or z too."""
    z, label = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 1)), jnp.float32), jnp.ones((2, 2), jnp.int32)
    options = Sampling(1, "ddim", 0.0, 0.0, 0, -1.0, "whole", scale, *interval)
    given = Given(None, None, None, None, label=label, guidance=guidance_of(options, 1000))
    return z, guided(lambda one: z if same else jnp.where(jnp.max(one) > 0, z, 3 * z), given, jnp.full(2, t))


def test_guidance_is_the_weighted_difference_of_both_predictions():
    z, eps = guide(2.5, 500)
    np.testing.assert_allclose(eps, 2.5 * z - 1.5 * 3 * z, rtol=1e-5)
    z, eps = guide(0.0, 500)
    np.testing.assert_allclose(eps, 3 * z, rtol=1e-6)


@pytest.mark.parametrize("case", [dict(scale=1.0, t=500), dict(scale=3.0, t=900), dict(scale=3.0, t=500, same=True)])
def test_without_a_scale_outside_the_interval_and_with_equal_branches_guidance_does_nothing(case):
    np.testing.assert_array_equal(*guide(**case))


# --- a trained model ---


def test_the_prompt_chooses_between_two_pictures(model):
    truth = {
        style: np.asarray(model.encode(flat(colour))) for style, colour in zip("fr", COLOURS.values(), strict=True)
    }
    prompts = ["style=flat red square", "style=round", "blue", "red"]
    for options in ({}, {"sampler": "dpmpp", "eta": 0.0}, {"guidance": 1.5, "guidance_interval": (0.1, 0.9)}):
        z = np.asarray(model.generate_latent(4, prompt=prompts, seed=3, **options))
        for one, expected in zip(z, "frrf", strict=True):
            far = {style: float(np.mean((one - right[0]) ** 2)) for style, right in truth.items()}
            assert min(far, key=far.get) == expected and far[expected] < 0.2 * max(far.values()), (options, far)


def test_a_scale_of_one_is_the_plain_model_and_no_label_is_that_of_nothing(model):
    plain = model.generate_latent(2, prompt="red")
    np.testing.assert_array_equal(model.generate_latent(2, prompt="red", guidance=1.0), plain)
    np.testing.assert_allclose(
        model.generate_latent(2, prompt="red", guidance=5.0, guidance_interval=(0.999, 1.0)), plain, atol=1e-4
    )  # DDIM visits no time there
    z, t = jnp.ones((1, 2, 2, 2)), 300
    nothing, red = model.denoise(z, t, prompt=""), model.denoise(z, t, prompt="red")
    np.testing.assert_array_equal(model.denoise(z, t), nothing)
    assert np.abs(red - nothing).max() > 1e-3
    free = model.generate_latent(2, prompt="")
    np.testing.assert_allclose(model.generate_latent(2, prompt="red", guidance=0.0), free, atol=1e-4)


def test_the_vocabulary_goes_through_runs_exports_and_later_stages(run, pictures, model, tmp_path):
    known = vocabulary_of(model.config)
    assert known is not None and known[:3] == (("flat", "round"), ("blue", "red", "square"), 2)
    aj.export(run, tmp_path / "out")
    again = aj.load(tmp_path / "out")
    assert vocabulary_of(again.config) == known
    shapes = [jax.tree.map(jnp.shape, one.params["unet"]["label_embed"]) for one in (model, again)]
    assert shapes[0] == shapes[1] and shapes[0]["words"]["embedding"] == (4, 8)
    Image.new("RGB", (16, 16)).save(pictures / "flat__new.png")
    try:
        for stage, where in (("align", run.with_name("toy_align")), ("diffusion", run)):
            assert vocabulary_of(with_labels(config(pictures, stage), where).model.to_dict()) == known
        fresh = with_labels(config(pictures), tmp_path / "other")
        assert "new" in fresh.model.unet.labels.words
    finally:
        (pictures / "flat__new.png").unlink()
    unlabelled = config(pictures, **{"data.labels": ""})
    assert with_labels(unlabelled, tmp_path) is unlabelled


def test_a_u_net_without_labels_may_start_one_that_learns_labels(pictures, run, tmp_path):
    plain = config(pictures, **{"data.labels": "", "first_stage": str(run)}).model.to_dict()
    weights = jax.tree.map(lambda x: np.float32(x), storage.read_weights(run))
    weights["unet"].pop("label_embed")
    registry.write_export(tmp_path / "plain", {"model": plain}, weights, "", np.float32)
    made = with_labels(config(pictures, init_from=str(tmp_path / "plain"), first_stage=str(run)), tmp_path / "new")
    assert made.model.unet.labels.words == ("blue", "red", "square")
    given = start.given_weights(made.to_dict(), tmp_path / "new", print)
    z, t = jnp.ones((2, 2, 2, 2)), jnp.array([300, 7])
    batch = {"moments": np.zeros((2, 2, 2, 2), np.float32), "image": np.zeros((2, 4, 4, 3), np.float32)}
    batch["label"] = np.array([[1, 1, 0], [2, 2, 3]], np.int32)
    params, _ = start.start_weights(denoising.make_stage(made), given, jax.random.key(0), batch)
    before = models.build_unet(plain).apply({"params": weights["unet"]}, z, t)
    after = models.build_unet(made.model.to_dict()).apply({"params": params["unet"]}, z, t, label=batch["label"])
    np.testing.assert_array_equal(before, after)  # until it is trained, the label adds nothing
    del given["unet"]["conv_in"]
    with pytest.raises(UserError, match="lacks the weight unet/conv_in"):
        start.start_weights(denoising.make_stage(made), given, jax.random.key(0), batch)
    other = config(pictures, init_from=str(tmp_path / "plain"), first_stage=str(run), **{"model.unet.num_heads": 2})
    with pytest.raises(UserError, match="was trained with another model.unet.num_heads"):
        start.given_weights(other.to_dict(), tmp_path / "new", print)


def test_a_damaged_vocabulary_is_refused(run, tmp_path):
    aj.export(run, tmp_path / "out")
    path = tmp_path / "out" / storage.CONFIG
    about = json.loads(path.read_text())
    about["model"]["unet"]["labels"]["words"].append("red")
    path.write_text(json.dumps(about))
    with pytest.raises(
        UserError, match="unet.labels.words in .* where a list of texts, none of them twice is expected"
    ):
        aj.load(tmp_path / "out")
    about["model"]["unet"]["labels"]["words"] = ["red"]
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match="label_embed/words/embedding"):
        aj.load(tmp_path / "out")


@pytest.mark.parametrize(
    "options, match",
    [
        ({"prompt": "green"}, "knows no word 'green'"),
        ({"prompt": []}, "or several of them"),
        ({"guidance": -1.0}, "guidance is a scale >= 0"),
        ({"guidance_interval": (0.5, 0.2)}, "guidance_interval is a pair 0 <= first <= last <= 1"),
        ({"guidance_interval": 3}, "guidance_interval is a pair"),
        ({"canvas": (5, 8)}, "canvas has sides that are multiples of 2 pixels, got 5 x 8"),
        ({"canvas": (4, 8), "coarse": 1.5}, "coarse is a share of the times"),
    ],
)
def test_bad_prompts_and_guidance_are_refused(model, options, match):
    with pytest.raises(UserError, match=match):
        model.generate_latent(1, **options)


def test_a_model_without_labels_takes_neither_prompt_nor_guidance():
    emoji = aj.load("emoji")
    for options in ({"prompt": "cat"}, {"guidance": 2.0}):
        with pytest.raises(UserError, match="This model knows no labels; leave prompt and guidance out"):
            emoji.generate_latent(1, **options)


# --- data ---


def test_labels_stay_with_their_pictures(pictures, tmp_path):
    made = with_labels(config(pictures), tmp_path)
    known = vocabulary_of(made.model.to_dict())
    red = known.words.index("red") + 1
    with closing(data.train_batches(made.data, 0, 16, vocabulary=known)) as batches:
        batch = next(batches)
    assert batch["label"].shape == (16, 3) and 0 < np.sum(batch["image"][:, 0, 0, 0] > 0) < 16
    np.testing.assert_array_equal((batch["label"][:, 1:] == red).any(1), batch["image"][:, 0, 0, 0] > 0)
    examples, identity = data.views(made.data, 0, 2, known)
    assert all((one["label"][1:] == red).any() == (one["image"][0, 0, 0] > 0) for one in examples)
    assert "labels" in identity and "labels" not in data.views(made.data, 0, 2)[1]
    val = data.val_batch(made.data, known)
    np.testing.assert_array_equal((val["label"][:, 1:] == red).any(1), val["image"][:, 0, 0, 0] > 0)


def test_an_unreadable_picture_gives_the_label_of_the_one_that_takes_its_place(tmp_path):
    Image.new("RGB", (16, 16), "white").save(tmp_path / "b__white.png")
    (tmp_path / "a__broken.png").write_bytes(b"\x89PNG")
    source = data.make_source("folder", str(tmp_path), "all")
    known = data.make_vocabulary(source, 9)
    labelled = name_labels.LabelledSource(source, known)
    assert all(labelled[i].label.tolist() == known.encode("b", ["white"]).tolist() for i in range(2))


def test_examples_that_the_devices_make_carry_labels(pictures, tmp_path):
    fields = {"data.synthesis.enabled": True, "data.synthesis.tile": 16, "data.synthesis.whole": True}
    made = with_labels(config(pictures, **fields), tmp_path)
    known = vocabulary_of(made.model.to_dict())
    store = jax.tree.map(jnp.asarray, synthesis.store_from_config(made.data, known))
    red = (np.asarray(store.labels)[:, 1:] == known.words.index("red") + 1).any(1)
    np.testing.assert_array_equal(red, store.tiles[:, 8, 8, 0] > 128)
    assert sorted(red) == [False, True]
    variant, settings = synthesis.Variant(4, 8, 2.0, 4.0, 1.0, 16), synthesis.Settings(damage=False, whole=True)
    batch = jax.eval_shape(lambda: synthesis.make_batch(jax.random.key(0), store, variant, 16, settings))
    assert batch["label"].shape == (16, 3) and batch["label"].dtype == jnp.int32


# --- interpolation ---


def test_the_weights_of_two_noises_keep_their_variance():
    own, other = slerp_weights(np.linspace(0, 1, 9))
    np.testing.assert_allclose(own**2 + other**2, 1, atol=1e-6)
    assert (own[0], other[0], own[-1], other[-1]) == (1, 0, 0, 1)


@pytest.mark.parametrize("draw", [0, 3])  # z_T, and the noise of a step of DDIM
def test_noise_is_mixed_by_the_weights(draw):
    keys, cells = jax.random.split(jax.random.key(0)), jnp.asarray(cell_names([0, 1], (0, 0), (3, 3)))
    first, second = (diffusion.cell_noise(key, cells, draw, 2) for key in keys)
    own, other = (jnp.array(x, jnp.float32)[:, None, None, None] for x in ([0, 0.6], [1, 0.8]))
    mixed = draw_noise(Given(None, None, cells, keys[0], blend=Blend(keys[1], own, other)), draw, 2)
    np.testing.assert_array_equal(mixed[0], second[0])
    np.testing.assert_allclose(mixed[1], 0.6 * first[1] + 0.8 * second[1], atol=1e-6)


def test_an_interpolation_passes_the_pictures_of_its_seeds(model):
    options = dict(prompt="red")
    path = model.interpolate([4, 9, 4], 5, (16, 16), index=1, **options)
    for frame, seed in ((0, 4), (2, 9), (4, 4)):
        np.testing.assert_array_equal(path[frame], model.generate(2, (16, 16), seed=seed, **options)[1])
    np.testing.assert_array_equal(path[1], path[3])  # half-way there is half-way back


@pytest.mark.parametrize(
    "call, match",
    [
        (dict(seeds=[1], frames=3), "give two at least"),
        (dict(seeds=[1, 2, 3], frames=2), "frames is a whole number >= 3"),
        (dict(seeds=[1, -2], frames=3), "seed is a whole number >= 0"),
        (dict(seeds=[1, 2], frames=3, prompt=None), "interpolating needs one prompt"),
        (dict(seeds=[1, 2], frames=3, seed=4), "leave seed out"),
    ],
)
def test_impossible_interpolations_are_refused(model, call, match):
    with pytest.raises(UserError, match=match):
        model.interpolate(**{"prompt": "red"} | call)


def test_a_canvas_goes_on_from_an_enlarged_latent(model):
    z = np.random.default_rng(0).normal(size=(1, 2, 2, 3)).astype(np.float32)
    wide = np.asarray(enlarge(z, (2, 5)))
    np.testing.assert_array_equal(wide[:, :, 1:3], z)  # in the middle
    np.testing.assert_array_equal(wide[:, :, [0, 3, 4]], z[:, :, [0, 1, 1]])  # continued by its edge
    assert enlarge(z, (4, 6)).shape == (1, 4, 6, 3)
    options = dict(prompt="red", seed=2)
    plain = model.generate_latent(2, **options)
    np.testing.assert_array_equal(model.generate_latent(2, canvas=(4, 4), coarse=0.5, **options), plain)
    found = model.generate(2, canvas=(4, 8), coarse=0.25, **options)
    assert found.shape == (2, 4, 8, 3)
    np.testing.assert_array_equal(model.generate(1, canvas=(4, 8), coarse=0.25, **options), found[:1])
    assert np.all(found.mean((1, 2))[:, 0] > found.mean((1, 2))[:, 2])  # red, as the latent from which it goes on


def test_the_command_makes_animations_and_follows_prompts(run, model, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "start_jax", lambda: None)
    monkeypatch.setattr(aj, "load", lambda *_, **__: model)
    monkeypatch.chdir(tmp_path)
    common = ["generate", f"--model={run}", "--sizes=16", "--prompt=red"]
    argv = [*common[1:], "--interpolate=4,9", "--frames=3", "--quality=100"]
    assert sample.main(argv, task="generate") == 0
    found = images.read_frames(tmp_path / "out" / "interpolation_4-9_16x16.webp")
    path = model.interpolate([4, 9], 3, (16, 16), prompt="red")
    assert len(found) == 3 and found.loop == 0
    for frame, expected in zip(found, path, strict=True):
        np.testing.assert_array_equal(frame.picture.pixels[..., :3], expected)
    record = json.loads((tmp_path / "out" / "sample.json").read_text())
    assert (record["prompt"], record["interpolate"], record["guidance"]) == ("red", [4, 9], 1.0)
    assert (
        sample.main([*common[1:], "--num=2", "--seed=7", "--name={stem}_{seed}_{index}", "--output=b"], task="generate")
        == 0
    )
    np.testing.assert_array_equal(
        pixels(tmp_path / "b" / "sample_7_1.png"), model.generate(2, (16, 16), seed=7, prompt="red")[1]
    )
    for more, match in (
        (["--prompt=green"], "knows no word 'green'"),
        (["--guidance-interval=1,0"], "is no interval"),
        (["--interpolate=4"], "give two or more"),
        (["--interpolate=4,5,6", "--frames=2"], "less than the 3 seeds"),
        (["--interpolate=4,5", "--num=2"], "--num says which images are made, and --interpolate too"),
        (["--interpolate=4,5", "--format=jpg"], "--format=jpg holds no animation"),
        (["--num=1", "--output=a.gif"], "--output=a.gif holds animations"),
        (["--canvas=1048576x1048576"], "memory"),
        (["--coarse=0.5"], "--coarse belongs to --canvas"),
        (["--canvas=5x8"], "multiples of 2 pixels"),
        (["--frames=4"], "--frames counts those of --interpolate"),
    ):
        with pytest.raises(UserError, match=match):
            sample.main([*common[1:], "--output=c", *more], task="generate")
    with pytest.raises(UserError, match="--format=same belongs to the task upscale"):
        sample.main(["--task=generate", *common[1:], "--interpolate=4,5", "--format=same", "--output=c"])


def test_weights_of_a_run_without_labels_are_as_before():
    """A network without labels has the parameters that it always had."""
    plain = tiny("diffusion", **{"model.condition.enabled": False}).model.to_dict()
    labelled = json.loads(json.dumps(plain))
    labelled["unet"]["labels"].update(styles=["a"], words=["b"], most_words=1)
    before, after = (fit.network_shapes(one, "unet") for one in (plain, labelled))
    assert set(after) - set(before) == {"label_embed"}
    assert leaves_equal(*({k: v for k, v in one.items() if k != "label_embed"} for one in (before, after)))
