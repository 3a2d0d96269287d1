"""The HTTP API of the web server: every endpoint with good and bad requests, limits, the token and foreign pages."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from waiting import LIMIT
from web_models import HOST, bomb, busy, picture, site_of, write_models

from arbiscale_jax import images
from arbiscale_jax.cli import main, program, serve
from arbiscale_jax.images.alpha import resize_channel
from arbiscale_jax.web import view_routes
from arbiscale_jax.web.app import make_app
from arbiscale_jax.web.views import ImageView
from arbiscale_jax.web.worker import Task

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def site(folders):
    with site_of(folders, upload_bytes=200_000, input_pixels=40_000, output_pixels=60_000) as site:
        yield site


def client_of(app, **options):
    return TestClient(app, base_url=HOST, client=("127.0.0.1", 50000), **options)


@pytest.fixture(scope="module")
def shared(site):
    with client_of(make_app(site)) as client:
        yield client


@pytest.fixture
def client(shared, request):
    """A page of its own for each test."""
    shared.headers["X-Client"] = str(abs(hash(request.node.name))).zfill(8)
    return shared


def encoded(pixels, tmp_path, name="photo.png", **options):
    images.save(tmp_path / name, pixels, **options)
    return (tmp_path / name).read_bytes()


def upload(client, content):
    answer = client.post("/api/pictures", content=content)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def run(client, site, **asked):
    """Submits a job, waits for it and returns what is said of it."""
    answer = client.post("/api/jobs", json=asked)
    assert answer.status_code == 202, answer.text
    name = answer.json()["id"]
    task = site.board._tasks.get(name)
    if task is not None:
        task.future.exception(120)
    return client.get(f"/api/jobs/{name}").json()


def window(client, view, size, box, **more):
    asked = {"size": f"{size[0]}x{size[1]}", "box": ",".join(map(str, box)), **more}
    answer = client.get(f"/api/views/{view}/window", params=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


# --- pictures ---


def test_the_server_says_what_it_can_do(client):
    said = client.get("/api/server").json()
    assert said["upscale"]["name"] == "small_photos" and said["generate"]["name"] == "small_emoji"
    assert said["generate"]["size"] == 16 and said["limits"]["upload_bytes"] == 200_000
    assert {"name": "jpg", "quality": 95} in said["formats"] and {"name": "png", "quality": None} in said["formats"]
    assert set(client.get("/api/memory").json()) == {"latents", "features", "windows"}


def test_a_picture_is_stored_under_its_hash_once(client, tmp_path):
    content = encoded(picture(dtype=np.uint16, channels=4), tmp_path)
    said = client.post("/api/pictures", content=content).json()
    assert said.items() >= dict(height=12, width=10, channels=4, bits=16, format="PNG", frames=1).items()
    assert upload(client, content) == said["id"]
    assert client.get("/api/pictures").json() == [said]
    assert client.get(f"/api/pictures/{said['id']}").json() == said
    assert client.delete(f"/api/pictures/{said['id']}").status_code == 204
    assert client.get(f"/api/pictures/{said['id']}").status_code == 404
    assert client.delete(f"/api/pictures/{said['id']}").status_code == 404


@pytest.mark.parametrize(
    "content, status, match",
    [
        (b"", 400, "empty"),
        (b"these are words, and no picture", 400, "not an image"),
        (bomb(), 400, "900000000|30000 x 30000"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 400, "damaged or truncated"),
        (bytes(200_001), 413, "200001 bytes or more, and at most 200000"),
        (b"P5 1 1 255 \x00", 400, "1 x 1 pixels; upscaling needs"),
    ],
    ids=["empty", "text", "bomb", "damaged", "large", "one pixel"],
)
def test_bad_uploads_are_refused_in_a_sentence(client, content, status, match):
    answer = client.post("/api/pictures", content=content)
    said = answer.json()["detail"]
    assert answer.status_code == status and re.search(match, said), answer.text
    assert said.startswith(("The file", "The picture")) and "--" not in said
    assert client.get("/api/pictures").json() == []


def test_an_upload_without_a_length_is_cut_off(client):
    answer = client.post("/api/pictures", content=(bytes(50_000) for _ in range(1000)))
    assert answer.status_code == 413 and "at most 200000" in answer.json()["detail"]


def test_examples_can_be_upscaled(client):
    answer = client.get("/api/examples/cat")
    assert answer.headers["content-type"] == "image/png" and upload(client, answer.content)
    missing = client.get("/api/examples/dog")
    assert missing.status_code == 404 and "the examples are" in missing.json()["detail"]


# --- jobs ---


def test_an_upscaled_picture_has_the_bytes_of_the_command_line(client, site, folders, tmp_path):
    photo = images.Picture(picture(), images.Metadata(text={"Title": "Mine"}, dpi=(72.0, 72.0)))
    content = encoded(photo, tmp_path)
    job = run(client, site, task="upscale", picture=upload(client, content), scale=3.7, samples=2, seed=5)
    assert job["state"] == "done" and job["done"] == 1 and job["size"] == [44, 37] and job["results"] == 2
    for kind, ending, options in (("png", "png", []), ("jpg", "jpg", ["--quality=80"]), ("tiff", "tif", [])):
        out = tmp_path / kind
        argv = ["upscale", f"--model={folders[0]}", f"--input={tmp_path / 'photo.png'}", f"--output={out}"]
        argv += ["--scale=3.7", "--samples=2", "--seed=5", f"--format={kind}", *options]
        assert program.run(main.dispatch, argv) == 0
        query = {"format": kind, **({"quality": 80} if options else {})}
        for i in range(2):
            answer = client.get(f"/api/jobs/{job['id']}/results/{i}", params=query)
            assert answer.content == (out / f"photo_x3.7_{i}.{ending}").read_bytes()
            assert f"upscale_44x37_{i}.{ending}" in answer.headers["content-disposition"]
    bare = client.get(f"/api/jobs/{job['id']}/results/0", params={"metadata": False})
    assert images.read(bare.content).metadata.text == {}
    assert images.read(client.get(f"/api/jobs/{job['id']}/results/0").content).metadata.text == {"Title": "Mine"}
    assert not list(site.scratch.glob("result_*"))


def test_alpha_grey_and_16_bits_are_kept(client, site, tmp_path, folders):
    pixels = picture(channels=2, dtype=np.uint16)
    job = run(client, site, task="upscale", picture=upload(client, encoded(pixels, tmp_path)), long_side=44)
    found = images.read(client.get(f"/api/jobs/{job['id']}/results/0").content).pixels
    assert job["size"] == [44, 37] and found.dtype == np.uint16
    np.testing.assert_array_equal(found, site.room.upscaler.upscale(pixels, size=(44, 37)))


def test_generated_images_have_the_bytes_of_the_command_line(client, site, folders, tmp_path):
    job = run(client, site, task="generate", num=3, seed=9, size=[20, 24])
    assert job["state"] == "done" and job["views"] == ["image-9-0", "image-9-1", "image-9-2"]
    argv = ["generate", f"--model={folders[1]}", "--num=3", "--seed=9", "--sizes=20x24", f"--output={tmp_path}"]
    assert program.run(main.dispatch, argv) == 0
    for i in range(3):
        found = client.get(f"/api/jobs/{job['id']}/results/{i}").content
        assert found == (tmp_path / f"sample_9_{i:03d}_20x24.png").read_bytes()
    later = run(client, site, task="generate", num=1, first=2, seed=9, size=[20, 24])
    assert client.get(f"/api/jobs/{later['id']}/results/0").content == found
    assert [one["id"] for one in client.get("/api/jobs").json()] == [job["id"], later["id"]]
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert [one["id"] for one in client.get("/api/jobs").json()] == [later["id"]]
    assert client.get(f"/api/jobs/{job['id']}/results/0").status_code == 404


@pytest.mark.parametrize(
    "asked, status, match",
    [
        (dict(scale=0), 422, "scale: Input should be greater than 0"),
        (dict(scale="much"), 422, "scale"),
        (dict(scale=4, long_side=9), 400, "exclude each other"),
        (dict(scale=0.01), 400, "scale 0.01 leaves nothing"),
        (dict(size=[300, 300]), 400, "larger than the 60000"),
        (dict(samples=17), 400, "samples is at most 16"),
        (dict(restore=0.5), 400, "leave restore out"),
        (dict(seed=-1), 422, "seed"),
        (dict(sampels=2), 422, "sampels: Extra inputs"),
        (dict(picture="../../etc/passwd"), 422, "picture"),
        (dict(picture="0" * 32), 404, "no such picture"),
    ],
)
def test_impossible_jobs_are_refused_in_a_sentence(client, tmp_path, asked, status, match):
    name = upload(client, encoded(picture(), tmp_path))
    answer = client.post("/api/jobs", json={"task": "upscale", "picture": name, **asked})
    assert answer.status_code == status and match in answer.json()["detail"], answer.text


@pytest.mark.parametrize(
    "path, status, match",
    [
        ("/api/jobs/1", 404, "no such job"),
        ("/api/jobs/%2e%2e", 404, ""),
        ("/api/jobs/1/results/0", 404, "no such job"),
        ("/api/pictures/..%2f..%2fetc%2fpasswd", 404, ""),
        ("/api/views/photo-1/window?size=1x1&box=0,0,1,1", 400, "A view is called"),
        ("/api/views/image-0-64", 400, "from 0 to 63"),
        ("/api/views/image-0-0/window?size=20&box=0,0,1,1", 400, "write HEIGHTxWIDTH"),
        ("/api/views/image-0-0/window?size=20x20&box=0,0,1", 400, "write TOP,LEFT,HEIGHT,WIDTH"),
        ("/api/views/image-0-0/window?size=20x20&box=0,0,21,1", 400, "does not lie inside"),
        ("/api/views/image-0-0/window?size=9000x9000&box=0,0,2000,2000", 400, "larger than the 1048576"),
        ("/api/views/image-0-0/window?size=9999999999999x1&box=0,0,1,1", 400, "from 1 to 2^40"),
        ("/api/views/image-0-0/window?size=9x9&box=0,0,1,1&kind=nearest", 422, "kind"),
        ("/api/views/photo-" + "0" * 32 + "-0-0-auto", 404, "no such picture"),
        ("/../pyproject.toml", 404, ""),
        ("/%2e%2e/app.py", 404, ""),
        ("/..%2fapp.py", 404, ""),
        ("/nothing", 404, ""),
    ],
)
def test_what_is_not_there_or_makes_no_sense(client, path, status, match):
    answer = client.get(path)
    assert answer.status_code == status and match in answer.json()["detail"], answer.text


def test_jobs_that_wait_say_how_many_are_ahead_and_are_cancelled(client, site, tmp_path):
    asked = {"task": "upscale", "picture": upload(client, encoded(picture(), tmp_path))}
    with busy(site.worker):
        first, second = (client.post("/api/jobs", json=asked).json() for _ in range(2))
        assert (first["state"], first["ahead"], second["ahead"]) == ("queued", 0, 1)
        assert client.get(f"/api/jobs/{first['id']}/results/0").json()["detail"].startswith("The job is queued")
        assert client.post(f"/api/jobs/{second['id']}/cancel").json()["state"] == "cancelled"
        assert client.post(f"/api/jobs/{second['id']}/cancel").json()["state"] == "cancelled"
        task = site.board._tasks[first["id"]]
    assert task.future.exception(120) is None
    assert [one["state"] for one in client.get("/api/jobs").json()] == ["done", "cancelled"]


def test_a_running_job_is_cancelled_after_its_program(client, site, tmp_path, monkeypatch):
    asked = {"task": "upscale", "picture": upload(client, encoded(picture(seed=2), tmp_path))}
    sample = site.room.sample

    def cancelling(view, wanted, progress=None):
        [job] = client.get("/api/jobs").json()
        assert client.post(f"/api/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
        return sample(view, wanted, progress)

    monkeypatch.setattr(site.room, "sample", cancelling)
    name = client.post("/api/jobs", json=asked).json()["id"]
    while task := site.board._tasks.get(name):
        task.future.exception(120)
    assert client.get(f"/api/jobs/{name}").json()["state"] == "cancelled"
    assert not list(site.results._folder.glob("*.part"))


def test_a_job_that_meets_a_bug_fails_alone(client, site, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(site.room, "sample", lambda *args: 1 / 0)
        job = run(client, site, task="generate", num=1, seed=77)
    assert job["state"] == "failed" and "its log says why" in job["error"] and "ZeroDivisionError" in caplog.text
    assert run(client, site, task="generate", num=1, seed=77)["state"] == "done"


# --- views ---


def test_windows_are_those_of_render(client, site):
    model = site.room.generator
    z = np.concatenate([found for _, found in model.generate_each(3, seed=4)])
    for size, box in (((64, 64), (0, 0, 64, 64)), ((16 * 4096, 16 * 4096), (30000, 41000, 100, 70))):
        expected = model.render(z[2:], size, box)[0]
        np.testing.assert_array_equal(window(client, "image-4-2", size, box), expected)
    small = model.render(z[2:], (16, 16))[0]
    expected = np.stack([resize_channel(small[..., i], (64, 64), (3, 5, 20, 30)) for i in range(3)], -1)
    np.testing.assert_array_equal(window(client, "image-4-2", (64, 64), (3, 5, 20, 30), kind="bicubic"), expected)


def test_windows_of_an_answer_are_those_of_upscale(client, site, tmp_path):
    pixels = picture(seed=5)
    name = upload(client, encoded(pixels, tmp_path))
    view = f"photo-{name}-3-1-auto"
    said = client.get(f"/api/views/{view}").json()
    assert said == {"view": view, "height": 12, "width": 10, "ready": False}
    found = window(client, view, (96, 80), (10, 20, 50, 60))
    np.testing.assert_array_equal(found, site.room.upscaler.upscale(pixels, 8, samples=2, seed=3)[1, 10:60, 20:80])
    assert client.get(f"/api/views/{view}").json()["ready"]
    wide = window(client, view, (12, 10), (0, 0, 12, 10), kind="bicubic")
    np.testing.assert_array_equal(wide, pixels)


def test_a_window_is_rendered_once(client, site, monkeypatch):
    first = window(client, "image-1-0", (48, 48), (0, 0, 48, 48))
    monkeypatch.setattr(site.room, "window", lambda *args: pytest.fail("it was to be kept"))
    np.testing.assert_array_equal(window(client, "image-1-0", (48, 48), (0, 0, 48, 48)), first)


@pytest.mark.parametrize("others", [0, 1])
def test_sampling_ends_with_the_last_who_waits_for_the_view(site, monkeypatch, others):
    view, seen = ImageView(31, 0), []

    def sample(view, wanted, progress):
        task.unwanted()  # its client has moved on
        progress(2, 2)
        progress(1, 2)
        seen.append(view)

    monkeypatch.setattr(site.room, "sample", sample)
    monkeypatch.setitem(site.wanted, view, others)
    task = Task("a page", partial(view_routes._steps, site, (view, "model", (8, 8), (0, 0, 8, 8))))
    assert task.step() != bool(others) and len(seen) == others


# --- limits ---


def test_limits_per_client(folders, tmp_path):
    with site_of(folders, jobs_per_client=2, jobs=3, pictures_per_client=1, windows_per_client=0) as site:
        with client_of(make_app(site)) as client:
            client.headers["X-Client"] = "page-one"
            name = upload(client, encoded(picture(), tmp_path))
            answer = client.post("/api/pictures", content=encoded(picture(seed=1), tmp_path))
            assert answer.status_code == 429 and "remove some" in answer.json()["detail"]
            assert upload(client, encoded(picture(), tmp_path)) == name
            other = {"X-Client": "page-two"}
            with busy(site.worker):
                asked = {"task": "generate", "num": 1}
                codes = [client.post("/api/jobs", json=asked).status_code for _ in range(3)]
                assert codes == [202, 202, 429]
                codes = [client.post("/api/jobs", json=asked, headers=other).status_code for _ in range(2)]
                assert codes == [202, 429]
                answer = client.get("/api/views/image-0-0/window?size=9x9&box=0,0,9,9")
                assert answer.status_code == 429 and "Too many windows" in answer.json()["detail"]
                site.board.leave("page page-one")
                assert {one["state"] for one in client.get("/api/jobs").json()} == {"cancelled"}
                assert {one["state"] for one in client.get("/api/jobs", headers=other).json()} == {"queued"}
            bad = client.get("/api/jobs", headers={"X-Client": "a b"})
            assert bad.status_code == 400 and "X-Client" in bad.json()["detail"]


def test_old_pictures_and_results_make_room(folders, tmp_path):
    contents = [encoded(picture(seed=i), tmp_path) for i in range(3)]
    most = max(len(contents[0]) + len(contents[2]), len(contents[1]) + len(contents[2])) + 10
    with site_of(folders, picture_bytes=most, result_bytes=5000) as site, client_of(make_app(site)) as client:
        names = [upload(client, content) for content in contents]
        assert [client.get(f"/api/pictures/{name}").status_code for name in names] == [404, 200, 200]
        jobs = [run(client, site, task="generate", num=1, seed=i, size=[20, 30]) for i in range(3)]
        assert [one["id"] for one in client.get("/api/jobs").json()] == [jobs[1]["id"], jobs[2]["id"]]
        large = run(client, site, task="generate", num=3, seed=1, size=[30, 30])
        assert large["state"] == "failed" and "ask for fewer or smaller" in large["error"]


def test_what_is_finished_is_there_after_a_restart(folders, tmp_path):
    with site_of(folders, tmp_path / "store") as site, client_of(make_app(site)) as client:
        name = upload(client, encoded(picture(), tmp_path))
        done = run(client, site, task="upscale", picture=name, scale=2)
        content = client.get(f"/api/jobs/{done['id']}/results/0").content
        (tmp_path / "store" / "results" / "leftover.part").mkdir()
        with busy(site.worker):
            lost = client.post("/api/jobs", json={"task": "upscale", "picture": name, "scale": 3}).json()
            client.delete(f"/api/jobs/{lost['id']}")
    with site_of(folders, tmp_path / "store") as site, client_of(make_app(site)) as client:
        assert [one["id"] for one in client.get("/api/jobs").json()] == [done["id"]]
        assert client.get(f"/api/jobs/{done['id']}/results/0").content == content
        assert client.get("/api/pictures").json()[0]["id"] == name
        assert not list((tmp_path / "store" / "results").glob("*.part"))


def test_a_server_may_lack_a_model(folders, tmp_path):
    with site_of((None, folders[1])) as site, client_of(make_app(site)) as client:
        assert client.get("/api/server").json()["upscale"] is None
        name = upload(client, encoded(picture(), tmp_path))
        answer = client.post("/api/jobs", json={"task": "upscale", "picture": name})
        assert answer.status_code == 400 and "no model that upscales" in answer.json()["detail"]


# --- who may ask ---


def test_the_api_needs_the_token_and_the_page_does_not(site, caplog):
    client = client_of(make_app(site, TOKEN))
    assert client.get("/").status_code == 200 and client.get("/style.css").status_code == 200
    for given in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}, {"Authorization": "Bearer ä"}):
        encoded = {name: value.encode("latin-1") for name, value in given.items()}
        for path in ("/api/server", "/api/openapi.json", "/api/views/image-0-0"):
            answer = client.get(path, headers=encoded)
            assert answer.status_code == 401 and "Authorization: Bearer TOKEN" in answer.json()["detail"]
    assert client.get(f"/api/server?token={TOKEN}").status_code == 401
    assert client.get("/api/server", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "evil.example:8000"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "[::1"}, 421),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "mine.example"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(site, headers, status):
    client = client_of(make_app(site, hosts=["mine.example"]))
    assert client.get("/api/server", headers=headers).status_code == status
    assert client.post("/api/pictures", content=b"", headers=headers).status_code == (400 if status == 200 else status)


def test_answers_forbid_what_the_page_does_not_need(client):
    for path in ("/", "/main.js", "/api/server", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "http" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in headers


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/").text
    names = set(re.findall(r'(?:src|href)="([^"#]+)"', page))
    assert {"style.css", "main.js", "icon.svg"} <= names
    seen, left = set(), names | {"api.js"}
    while left:
        name = left.pop()
        seen.add(name)
        text = client.get(f"/{name}").text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        left |= set(re.findall(r'from "\./([^"]+)"', text)) - seen
    assert {"viewer.js", "tiles.js", "zoom.js"} <= seen


def test_the_api_is_described(client):
    said = client.get("/api/openapi.json").json()
    assert {"/api/pictures", "/api/jobs", "/api/jobs/{job}/results/{number}", "/api/views/{view}/window"} <= set(
        said["paths"]
    )
    assert all("summary" in one or "description" in one for path in said["paths"].values() for one in path.values())
    assert "http" not in json.dumps(said).replace("HTTPValidationError", "")


# --- the command ---


@pytest.mark.parametrize(
    "argv, match",
    [
        (["--host=0.0.0.0"], "--host=0.0.0.0 can be reached by others; add --token"),
        (["--token=short"], "--token needs 16 or more"),
        (["--model=", "--generator="], "both empty"),
        (["--model=nowhere"], "nowhere"),
        (["--model=emoji"], "does not upscale"),
        (["--generator=photos"], "does not generate"),
        (["--port=70000"], "port"),
        (["--prot=1"], "did you mean port"),
        (["--store={file}"], "no folder that can be written"),
    ],
)
def test_mistakes_are_told_before_models_are_loaded(argv, match, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("ARBISCALE_TOKEN", raising=False)
    monkeypatch.setattr("arbiscale_jax.load", lambda *args, **options: pytest.fail("it was to be refused"))
    (tmp_path / "file").touch()
    argv = [one.format(file=tmp_path / "file") for one in argv]
    assert program.run(main.dispatch, ["serve", *argv]) == 2
    assert match in capsys.readouterr().err


def test_the_command_passes_its_flags_on(folders, monkeypatch, tmp_path):
    from arbiscale_jax.web import running

    found = []
    monkeypatch.setattr(running, "run", lambda site, address: found.append((site, address, site.close())))
    monkeypatch.setenv("ARBISCALE_TOKEN", TOKEN)
    argv = [f"--model={folders[0]}", "--generator=", "--host=0.0.0.0", "--port=0", "--hostname=a.example,b.example"]
    assert program.run(serve.main, [*argv, "--max-upload=3", "--max-pixels=99", f"--store={tmp_path / 's'}"]) == 0
    [(site, address, _)] = found
    assert address == ("0.0.0.0", 0, TOKEN, ["a.example", "b.example"])
    assert site.limits.upload_bytes == 3_000_000 and site.limits.input_pixels == 99
    assert site.room.generator is None and (tmp_path / "s" / "pictures").is_dir()


def test_an_address_that_cannot_be_used(site):
    from arbiscale_jax.errors import UserError
    from arbiscale_jax.web.running import listen

    with listen("127.0.0.1", 0) as taken:
        with pytest.raises(UserError, match="give another --port"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="no address"):
        listen("no address at all", 1)


START = "from arbiscale_jax.web import running, site; running.run(site.make_site(None, None), running.Address(port=0))"
EARLY = """
import os, signal, uvicorn
serve = uvicorn.Server.serve
async def interrupted(self, sockets=None):  # before uvicorn has its handlers
    os.kill(os.getpid(), signal.SIGTERM)
    await serve(self, sockets)
uvicorn.Server.serve = interrupted
"""


@pytest.mark.parametrize("before", ["", EARLY])
def test_the_process_ends_by_a_signal_and_leaves_nothing(before, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", before + START]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("The page is at http://127.0.0.1:")
        if not before:
            assert list(tmp_path.iterdir())
            process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    assert not list(tmp_path.iterdir())
