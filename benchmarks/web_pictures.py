"""Takes the pictures of the page that docs/WEB.md shows: of the bundled models, in a headless Chromium.

python benchmarks/web_pictures.py --output docs/images
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from serve_load import server

MS = 90_000
DESKTOP, PHONE = {"width": 1180, "height": 800}, {"width": 375, "height": 740}


def opened(browser: Browser, address: str, viewport: dict, scheme: str = "light") -> Page:
    page = browser.new_context(viewport=viewport, color_scheme=scheme).new_page()
    page.set_default_timeout(MS)
    page.goto(address)
    page.wait_for_selector("body[data-ready=yes]")
    return page


def settled(page: Page, stage: str) -> None:
    page.wait_for_timeout(300)
    page.wait_for_selector(f"{stage}[data-ready=true]")
    page.wait_for_timeout(300)


def upscale_example(page: Page) -> None:
    page.get_by_role("button", name="Example: Cat").click()
    page.wait_for_selector("#chosen li")
    page.fill("#scale", "8")
    page.click("#upscale-go")
    settled(page, ".job[data-state=done] .stage")


def take(page: Page, path: Path, **options) -> None:
    """Saves what the page shows as a WebP file."""
    with Image.open(io.BytesIO(page.screenshot(**options))) as image:
        image.convert("RGB").save(path, "WEBP", quality=80, method=6)


def upscaled(browser: Browser, address: str, folder: Path) -> None:
    page = opened(browser, address, DESKTOP)
    upscale_example(page)
    take(page, folder / "web_upscale.webp", full_page=True)
    page.locator(".job .below button", has_text="Zoom in").click()
    settled(page, "#zoom-stage")
    canvas = page.locator("#zoom-stage canvas")
    canvas.press("0")
    settled(page, "#zoom-stage")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.44 * box["height"])
    page.mouse.wheel(0, -830)
    page.get_by_role("radio", name="Both").check()
    settled(page, "#zoom-stage")
    take(page, folder / "web_zoom.webp")


def generated(browser: Browser, address: str, folder: Path) -> None:
    page = opened(browser, address + "#generate", {**DESKTOP, "height": 600}, "dark")
    page.fill("#generate-seed", "7")
    page.click("#generate-go")
    page.wait_for_function("() => document.querySelectorAll('#generate-jobs img').length === 8")
    page.wait_for_timeout(500)
    take(page, folder / "web_generate.webp", full_page=True)


def on_a_phone(browser: Browser, address: str, folder: Path) -> None:
    page = opened(browser, address, PHONE)
    upscale_example(page)
    take(page, folder / "web_phone.webp", full_page=True)
    page.goto(address + "#zoom/image-7-0")
    settled(page, "#zoom-stage")
    take(page, folder / "web_phone_zoom.webp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the folder for the pictures")
    parser.add_argument("--all", action="store_true", help="also at the width of a phone")
    args = parser.parse_args()
    chosen = (upscaled, generated, on_a_phone) if args.all else (upscaled, generated)
    with server() as (port, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for one in chosen:
            one(browser, f"http://127.0.0.1:{port}/", args.output)
        browser.close()


if __name__ == "__main__":
    main()
