"""The pages in a real browser: no messages, readable on a phone and in the dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield made
        made.close()


class Visit:
    """A page that was opened, and the messages and requests that it caused."""

    def __init__(self, browser: Browser, path: Path, width: int, scheme: str = "light") -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = context.new_page()
        self.messages: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.messages.append(request.url))
        self.page.goto(path.as_uri())
        self.messages = [m for m in self.messages if not m.startswith(("data:", path.as_uri()))]


@pytest.fixture(params=["group_page", "run_page", "spectra_page"])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_page_is_silent_and_fits(browser: Browser, path: Path, width: int, scheme: str) -> None:
    visit = Visit(browser, path, width, scheme)
    assert visit.messages == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.page.locator("h1").count() == 1
    assert visit.page.locator("h2").count() >= 5


def test_every_picture_is_decoded(browser: Browser, path: Path) -> None:
    page = Visit(browser, path, 1280).page
    sizes = page.evaluate(
        """async () => {
          const inside = [...document.querySelectorAll('svg image')].map(e => e.href.baseVal);
          const plain = [...document.images].map(e => e.src);
          return Promise.all([...inside, ...plain].map(async src => {
            const image = new Image(); image.src = src; await image.decode();
            return image.naturalWidth;
          }));
        }"""
    )
    assert all(size > 0 for size in sizes)
    svgs = "[...document.querySelectorAll('figure svg')]"
    boxes = page.evaluate(f"{svgs}.map(e => [e.clientWidth, e.clientHeight])")
    assert boxes
    assert all(width > 200 and height > 80 for width, height in boxes)


def test_figure_text_is_readable_on_phone(browser: Browser, path: Path) -> None:
    page = Visit(browser, path, 390).page
    texts = "[...document.querySelectorAll('figure svg text')]"
    heights = page.evaluate(
        f"{texts}.map(e => e.getBoundingClientRect().height).filter(h => h > 0)"
    )
    assert heights
    # 7 pixels of box is the x-height of small print; smaller text cannot be read.
    assert min(heights) >= 7


def test_dark_scheme_changes_page_and_figures(browser: Browser, path: Path) -> None:
    def luminance(scheme: str, selector: str, what: str) -> float:
        page = Visit(browser, path, 1280, scheme).page
        style = "([s, w]) => getComputedStyle(document.querySelector(s))[w]"
        script = f"{style}.match(/[0-9.]+/g).slice(0, 3).map(Number)"
        red, green, blue = page.evaluate(script, [selector, what])
        return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)

    assert luminance("dark", "body", "backgroundColor") < 50
    assert luminance("light", "body", "backgroundColor") > 200
    assert luminance("light", "figure svg text", "fill") < 80
    assert luminance("dark", "figure svg text", "fill") > 180


def test_page_is_accessible(browser: Browser, path: Path) -> None:
    page = Visit(browser, path, 1280).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for selector, rule in (
        ("table", "e.caption && e.querySelector('th[scope=col]')"),
        ("tbody tr", "e.querySelector('th[scope=row]')"),
        ("figure svg", "e.getAttribute('role') === 'img'"),
    ):
        assert page.evaluate(f"[...document.querySelectorAll('{selector}')].every(e => {rule})")
    headings = "[...document.querySelectorAll('h1,h2,h3')]"
    levels = page.evaluate(f"{headings}.map(e => Number(e.tagName[1]))")
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_page_prints(browser: Browser, path: Path) -> None:
    pdf = Visit(browser, path, 1280).page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000
