"""What tests in a real browser share: pages of one's own, what people do there, and what must not be seen."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from app.serving import Served

WIDTHS = (1280, 390)
PATIENCE = 180_000  # milliseconds until something is given up that takes a moment on a machine of its own
expect.set_options(timeout=PATIENCE)

Open = Callable[..., Page]


@contextmanager
def pages_of(app: Served, browser: Browser, forgiven: str = "nothing") -> Iterator[Open]:
    """Opens the page in browsers of their own; at the end nothing may have gone wrong there, and nobody else been asked.

    forgiven: what may be said to have gone wrong, as where the page is served anew.
    """
    contexts: list[BrowserContext] = []
    wrong: list[str] = []
    asked: set[str] = set()

    def open_page(path: str = "/", width: int = 1280, locale: str = "en-US", **options: Any) -> Page:
        height = 900 if width > 640 else 844
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, locale=locale, **options))
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: asked.add(request.url.split("/")[2]) if request.url.startswith("http") else None)
        page.goto(app.address + path)
        expect(page.locator("#status")).to_contain_text(re.compile("Drawn beforehand|这是预先生成的"))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [words for words in wrong if not re.search(forgiven, words)] == [] and asked == {app.address.split("/")[2]}


def draw(page: Page, button: str = "#draw") -> Locator:
    """Presses Draw, and waits for the end of the new job."""
    before = page.evaluate("localStorage.getItem('diffsteer-job')")
    page.locator(button).click()
    page.wait_for_function("before => localStorage.getItem('diffsteer-job') !== before", arg=before)
    status = page.locator("#status")
    expect(status).to_contain_text(re.compile(r"Pictures: \d+, in|ready, in|⚠|Stopped|张图片，用时|对比图已完成"))
    return status


def refused(page: Page, words: str) -> None:
    """Presses Draw, and is told why not."""
    page.locator("#draw").click()
    expect(page.locator("#status")).to_contain_text(words)


def fold(page: Page, elem_id: str) -> None:
    page.locator(f"#{elem_id} button.label-wrap").click()


def taken(page: Page, elem_id: str, place: Path) -> Path:
    """What a download button gives."""
    expect(page.locator(f"#{elem_id}")).to_be_enabled()
    with page.expect_download() as waiting:
        page.locator(f"#{elem_id}").click()
    path = place / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def seeds(page: Page) -> list[str]:
    return page.locator("#gallery .caption-label").all_inner_texts()


def only_label(page: Page, label: str) -> None:
    page.locator("#labels").get_by_label(label, exact=True).check()


def command_of(page: Page) -> list[str]:
    """The words of the command line that is shown."""
    if not page.locator("#command").is_visible():
        fold(page, "same")
    expect(page.locator("#command .cm-line").first).to_contain_text("diffsteer")
    return shlex.split("".join(page.locator("#command .cm-line").all_inner_texts()))


OVERLAPS = """() => {
  const shown = [...document.querySelectorAll('button, input, textarea, label, .status, canvas, #gallery img, .quiet')]
    .filter(one => one.checkVisibility({visibilityProperty: true, opacityProperty: true}))
    .filter(one => !one.closest('#gallery .grid-wrap, .wrap.default, [role=listbox]'))
    .map(one => [one, one.getBoundingClientRect()]).filter(([, box]) => box.width > 1 && box.height > 1);
  const wrong = [];
  for (const [one, box] of shown) {
    if (box.left < -1 || box.right > document.documentElement.clientWidth + 1) wrong.push('beside the page: ' + (one.id || one.innerText));
    if (one.tagName === 'BUTTON' && one.scrollWidth > one.clientWidth + 2) wrong.push('cut off: ' + one.innerText);
    for (const [other, theirs] of shown)
      if (one !== other && !one.contains(other) && !other.contains(one) && one.tagName === 'BUTTON' && other.tagName === 'BUTTON' &&
          !one.closest('#act') && !other.closest('#act') && one.ariaLabel !== 'Fullscreen' && other.ariaLabel !== 'Fullscreen' &&
          box.left < theirs.right - 1 && theirs.left < box.right - 1 && box.top < theirs.bottom - 1 && theirs.top < box.bottom - 1)
        wrong.push('overlap: ' + [one, other].map(each => each.innerText || each.ariaLabel || each.outerHTML.slice(0, 200)).join(' / '));
  }
  return wrong;
}"""


# What is chosen in a list must end before the list's arrow begins.
UNDER_ARROWS = """() => {
  const pen = document.createElement('canvas').getContext('2d');
  return [...document.querySelectorAll('.secondary-wrap input')].filter(one => one.checkVisibility()).filter(one => {
    pen.font = getComputedStyle(one).font;
    const words = one.getBoundingClientRect().left + parseFloat(getComputedStyle(one).paddingLeft) + pen.measureText(one.value).width;
    const arrow = one.closest('.wrap').querySelector('.dropdown-arrow');
    return arrow && words > arrow.getBoundingClientRect().left;
  }).map(one => one.value);
}"""
