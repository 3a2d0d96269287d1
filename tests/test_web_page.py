"""The page in a real browser, headless: what people do with it, by mouse, touch and keys."""

import base64
import re
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from web_models import bomb, busy, picture, site_of, write_models

from arbiscale_jax import images
from arbiscale_jax.cli import main, program
from arbiscale_jax.images.alpha import resize_channel
from arbiscale_jax.web import examples_shown
from arbiscale_jax.web.running import Address, listen, make_server

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser; it is not installed.")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="No Chromium is installed; `apt-get install chromium` brings it."
)
MS = 60_000  # far more than anything takes
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", autouse=True)
def small_examples():
    """Makes the examples so small that the tiny model has little to do."""
    examples_shown.example.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples_shown, "SIDE", 12)
        yield
    examples_shown.example.cache_clear()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def serving(site, token=""):
    """Serves a site at a port of its own, and yields its address."""
    with listen("127.0.0.1", 0) as found:
        server = make_server(site, Address(token=token))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [found]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(MS / 1000)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def site(folders):
    with site_of(folders, leaving_seconds=0.2) as site:
        yield site


@pytest.fixture(scope="module")
def address(site):
    with serving(site) as address:
        yield address


@pytest.fixture
def opened(browser, address):
    """Returns opened(hash, **options): a page that is ready; in the end no page has complained or looked elsewhere."""
    contexts, said, asked = [], [], []

    def open_page(where="", at=address, ready="body[data-ready=yes]", **options):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
        contexts.append(context)
        context.set_default_timeout(MS)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(at + where)
        page.wait_for_selector(ready)
        return page

    yield open_page
    for context in contexts:
        context.close()
    refused = "the server responded with a status of 4"  # bad uploads, and a missing token
    assert not [one for one in said if refused not in one]
    assert all(url.startswith(("http://127.0.0.1:", "blob:")) for url in asked)
    assert not [url for url in asked if TOKEN in url]


def ready(page, stage):
    """Waits until all tiles of a stage are shown."""
    page.wait_for_function("stage => document.querySelector(stage)?.dataset.ready === 'true'", arg=stage)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_function("stage => document.querySelector(stage)?.dataset.ready === 'true'", arg=stage)


def seen(page, stage):
    """Returns the pixels of a canvas, [h w 4]."""
    size, data = page.evaluate(
        """(stage) => {
          const canvas = document.querySelector(`${stage} canvas`);
          const found = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let text = "";
          for (let i = 0; i < found.data.length; i += 8192)
            text += String.fromCharCode(...found.data.subarray(i, i + 8192));
          return [[canvas.height, canvas.width, 4], btoa(text)];
        }""",
        stage,
    )
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(size)


def content(region):
    """Returns the opaque part of what a canvas shows."""
    rows, cols = (np.flatnonzero(region[..., 3].any(axis)) for axis in (1, 0))
    return region[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1, :3]


def test_a_picture_is_uploaded_upscaled_compared_and_downloaded(opened, site, folders, tmp_path):
    pixels = picture()
    images.save(tmp_path / "photo.png", pixels)
    page = opened()
    page.set_input_files("#files", tmp_path / "photo.png")
    page.fill("#scale", "8.5")
    page.fill("#samples", "2")
    page.fill("#upscale-seed", "5")
    page.get_by_role("button", name="Upscale", exact=True).click()
    page.wait_for_selector(".job[data-state=done] .stage canvas")
    ready(page, ".job .stage")
    assert page.locator(".job .meta").text_content() == "×8.5, 85 × 102 pixels, seed 5, 2 answers"
    whole = site.room.upscaler.upscale(pixels, 8.5, samples=2, seed=5)
    before = np.stack([resize_channel(pixels[..., i], (102, 85)) for i in range(3)], -1)

    found = content(seen(page, ".job .stage"))  # the true pixels, of the interpolation on the left
    assert found.shape == whole[0].shape
    border = next(x for x in range(85) if not np.array_equal(before[:, x], found[:, x]))
    assert 41 <= border <= 44
    np.testing.assert_array_equal(found[:, border:], whole[0][:, border:])

    handle = page.get_by_role("slider", name=re.compile("Border"))
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 2000, box["y"] + 30, steps=3)
    page.mouse.up()
    assert handle.get_attribute("aria-valuenow") == "0"
    ready(page, ".job .stage")
    np.testing.assert_array_equal(content(seen(page, ".job .stage")), whole[0])
    page.get_by_role("button", name="Answer 2").click()
    ready(page, ".job .stage")
    np.testing.assert_array_equal(content(seen(page, ".job .stage")), whole[1])

    argv = ["upscale", f"--model={folders[0]}", f"--input={tmp_path / 'photo.png'}", f"--output={tmp_path}"]
    argv += ["--scale=8.5", "--samples=2", "--seed=5"]
    for kind, ending, options in (("png", "png", []), ("webp", "webp", ["--format=webp", "--quality=70"])):
        page.get_by_label("Format").select_option(kind)
        if options:
            page.get_by_label("Quality").fill("70")
        with page.expect_download() as started:
            page.get_by_role("button", name="Download").click()
        assert started.value.suggested_filename == f"photo_x8.5_1.{ending}"
        assert program.run(main.dispatch, [*argv, *options]) == 0
        assert (tmp_path / f"photo_x8.5_1.{ending}").read_bytes() == started.value.path().read_bytes()

    page.reload()
    page.wait_for_selector(".job[data-state=done] .stage canvas")  # it is still there, under its name
    assert page.locator(".job h2").text_content().startswith("photo.png")
    page.get_by_role("button", name="Remove photo.png").click()
    assert page.locator(".job").count() == 0


def test_zooming_into_a_generated_image_shows_what_render_gives(opened, site):
    page = opened("#generate")
    page.fill("#generate-seed", "4")
    page.fill("#num", "3")
    page.fill("#generate-size", "32")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.wait_for_selector("#generate-jobs li:nth-child(3) img")
    page.get_by_role("link", name="Zoom into image 2").click()
    ready(page, "#zoom-stage")
    model = site.room.generator
    z = np.concatenate([found for _, found in model.generate_each(3, seed=4)])[2:]
    canvas = page.locator("#zoom-stage canvas")
    box, scale = canvas.bounding_box(), page.locator("#zoom-scale")
    while scale.text_content() != "×64":
        canvas.press("+")
        page.wait_for_timeout(20)
        assert float(scale.text_content()[1:]) <= 64
    ready(page, "#zoom-stage")
    shown = seen(page, "#zoom-stage")[..., :3]
    height, width = shown.shape[:2]
    top, left = (1024 - height) // 2, (1024 - width) // 2
    first = max(0, left)
    expected = model.render(z, (1024, 1024), (max(0, top), first, min(height, 1024), min(width, 1024)))[0]
    inside = shown[max(0, -top) : max(0, -top) + expected.shape[0], first - left : first - left + expected.shape[1]]
    np.testing.assert_array_equal(inside, expected)

    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 100, box["y"] + box["height"] / 2 - 50, steps=4)
    page.mouse.up()
    ready(page, "#zoom-stage")
    moved = seen(page, "#zoom-stage")[..., :3]
    top, left = top + 50, left + 100
    box2 = (max(0, top) + 20, max(0, left) + 20, 300, 400)
    expected = model.render(z, (1024, 1024), box2)[0]
    y, x = box2[0] - top, box2[1] - left
    np.testing.assert_array_equal(moved[y : y + 300, x : x + 400], expected)

    page.mouse.wheel(0, -1200)  # about x436
    ready(page, "#zoom-stage")
    assert 300 < float(scale.text_content()[1:]) < 600
    canvas.press("b")
    page.wait_for_selector("#page-zoom input[value=bicubic]:checked")
    ready(page, "#zoom-stage")
    page.wait_for_function("() => location.hash.includes('mode=bicubic')")
    place = page.evaluate("() => location.hash")
    canvas.press("0")
    page.wait_for_function("() => !location.hash.includes('times=4')")

    other = opened(place)  # a link that somebody else opens
    ready(other, "#zoom-stage")
    assert (
        other.locator("#zoom-scale").text_content()
        == re.search(r"×\d+", f"×{float(re.search('times=([0-9.]+)', place)[1]):.0f}")[0]
    )
    assert other.locator("#page-zoom input[value=bicubic]").is_checked()


def test_what_waits_is_cancelled_by_its_button_and_by_closing_the_page(opened, site):
    page = opened()
    page.get_by_role("button", name="Example: Cat").click()
    page.wait_for_selector("#chosen li")
    with busy(site.worker):
        page.get_by_role("button", name="Upscale", exact=True).click()
        page.get_by_text("Waiting").wait_for()
        [waiting] = [job for job in site.board._jobs.values() if not job.ended]
        page.get_by_role("button", name="Cancel").click()
        page.get_by_text("Cancelled").wait_for()
        assert waiting.state == "cancelled"
        page.get_by_role("button", name="Example: Rocket").click()
        page.wait_for_selector("#chosen li")
        page.get_by_role("button", name="Upscale", exact=True).click()
        page.get_by_text("Waiting").wait_for()
        [waiting] = [job for job in site.board._jobs.values() if not job.ended]
        task = site.board._tasks[waiting.id]
        page.close()
        task.future.exception(MS / 1000)
        assert waiting.state == "cancelled" and site.worker.number(urgent=False) == 0


def test_windows_that_are_no_longer_wanted_are_not_rendered(opened, site):
    page = opened("#zoom/image-8-0")
    ready(page, "#zoom-stage")
    with busy(site.worker):
        for _ in range(3):
            page.locator("#zoom-stage canvas").press("+")
        page.wait_for_function("() => document.querySelector('#zoom-stage').dataset.ready === 'false'")
        while not site.worker.number(urgent=True):
            page.wait_for_timeout(20)
        page.close()
        for _ in range(MS // 20):
            if not site.worker.number(urgent=True):
                break
            threading.Event().wait(0.02)
        assert site.worker.number(urgent=True) == 0


def test_bad_files_are_refused_with_a_sentence(opened, tmp_path):
    files = {"bomb.png": bomb(), "words.txt": b"these are words", "empty.png": b""}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(200_000_000)
    page = opened()
    expected = {"bomb.png": "900000000|30000", "words.txt": "not an image", "empty.png": "empty", "large.png": "200 MB"}
    for name, match in expected.items():
        page.set_input_files("#files", tmp_path / name)
        page.wait_for_function("name => document.querySelector('#banner').textContent.startsWith(name)", arg=name)
        assert re.search(match, page.get_by_role("alert").text_content())
    assert page.locator("#chosen li").count() == 0 and page.locator("#upscale-go").is_disabled()


def test_all_of_it_works_by_keyboard_on_a_narrow_screen(opened, site):
    page = opened(viewport={"width": 375, "height": 700})
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "skip"
    for name in ("arbiscale", "Upscale", "Generate", "Zoom"):
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.textContent") == name
    page.get_by_role("button", name="Example: Cup of coffee").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#chosen li")
    page.locator("#scale").focus()
    page.keyboard.press("Enter")  # submits
    page.wait_for_selector(".job[data-state=done] .stage canvas")
    ready(page, ".job .stage")
    handle = page.get_by_role("slider", name=re.compile("Border"))
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.handle').getAttribute('aria-valuenow') === '52'")
    page.keyboard.press("End")
    page.wait_for_function("() => document.querySelector('.handle').getAttribute('aria-valuenow') === '100'")
    for where in ("#upscale", "#generate", f"#zoom/{next(iter(site.board.of(page_client(page)))).views[0]}"):
        page.goto(page.url.split("#")[0] + where)
        page.wait_for_timeout(50)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 375, where
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("main input, main button, main select, main a, main canvas")]
              .filter((one) => one.offsetParent && !one.labels?.length && !one.getAttribute("aria-label") &&
                !one.textContent.trim())
              .map((one) => one.outerHTML)"""
        )
        assert nameless == []
    ready(page, "#zoom-stage")
    canvas = page.locator("#zoom-stage canvas")
    before = page.evaluate("() => location.hash")
    canvas.press("+")
    canvas.press("ArrowRight")
    page.wait_for_function("before => location.hash !== before", arg=before)


def page_client(page):
    return "page " + page.evaluate("() => sessionStorage.getItem('arbiscale.client')")


def test_two_fingers_zoom(opened):
    page = opened("#zoom/image-3-1", viewport={"width": 375, "height": 700}, has_touch=True)
    ready(page, "#zoom-stage")
    before = float(page.locator("#zoom-scale").text_content()[1:])
    box, session = page.locator("#zoom-stage canvas").bounding_box(), page.context.new_cdp_session(page)
    y = box["y"] + box["height"] / 2
    for kind, apart in (("Start", 20), ("Move", 30), ("Move", 60), ("Move", 80), ("End", None)):
        points = [{"x": 180 + sign * apart, "y": y, "id": i} for i, sign in enumerate((-1, 1))] if apart else []
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    page.wait_for_function(
        "before => Number(document.querySelector('#zoom-scale').textContent.slice(1)) > 3 * before", arg=before
    )
    after = float(page.locator("#zoom-scale").text_content()[1:])
    assert 3.5 < after / before < 4.5


def test_the_page_asks_for_the_token(opened, folders):
    with site_of((None, folders[1])) as site, serving(site, TOKEN) as address:
        page = opened(at=address, ready="#token-dialog[open]")
        page.get_by_role("textbox", name="Token").fill("a wrong token")
        page.get_by_role("button", name="Continue").click()
        page.get_by_text("does not take that token").wait_for()
        page.get_by_role("textbox", name="Token").fill(TOKEN)
        page.get_by_role("button", name="Continue").click()
        page.wait_for_selector("body[data-ready=yes]")
        assert page.get_by_text("This server has no model that upscales.").count() == 1
        page.context.close()
        page = opened(f"#token={TOKEN}", at=address)
        assert TOKEN not in page.url
        page.context.close()
