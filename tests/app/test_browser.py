"""The page in a real browser: what each control does, a whole story, several people at once, a killed job; pictures of it are kept.

Skipped where there is no Chromium. Screenshots go into the folder named by SCREENSHOTS, else into pytest's own.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from app.browsing import OVERLAPS, UNDER_ARROWS, WIDTHS, Open, command_of, draw, fold, only_label, pages_of, refused, seeds, taken
from app.serving import Served, bomb
from commandline import Diffsteer, pixels_of, recipe_of

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(app: Served, browser: Browser) -> Iterator[Open]:
    with pages_of(app, browser) as open_page:
        yield open_page


# ---- a whole story ---------------------------------------------------------------------------------------------------


def test_sample_steer_green_take_away_and_find_again(opened: Open, diffsteer: Diffsteer, tmp_path: Path, shots: Path) -> None:
    page = opened()
    assert len(seeds(page)) == 10  # drawn beforehand
    only_label(page, "3")
    page.locator("#each").get_by_label("4", exact=True).check()
    page.locator("#seed input").fill("11")
    expect(draw(page)).to_contain_text("Pictures: 4, in")
    expect(page.locator("#gallery .caption-label")).to_have_text([f"3 · seed {seed}" for seed in (11, 12, 13, 14)])
    plain = pixels_of(taken(page, "png", tmp_path))

    # green, twice as strong
    page.locator("#by").get_by_label("Colour", exact=True).check()
    page.locator("#color-strength input[type=number]").fill("2")
    draw(page)
    words = command_of(page)
    page.screenshot(path=shots / "story-1280.png", full_page=True)
    path = taken(page, "png", tmp_path)
    green = pixels_of(path)
    assert (green[..., 1].astype(int) - green[..., 0]).mean() > (plain[..., 1].astype(int) - plain[..., 0]).mean() + 1
    assert recipe_of(path)["steer"] == ["color=#1ae680:2"] and [each["seed"] for each in recipe_of(path)["pictures"]] == [11, 12, 13, 14]

    # the command line that is shown draws the same, to the last bit; so does the recipe in the picture
    words[words.index("--out") + 1] = "shell.png"
    assert diffsteer(*words[1:]).code == 0
    assert np.array_equal(pixels_of(tmp_path / "shell.png"), green)
    assert diffsteer("sample", "--from", path, "--out", "again.png").code == 0
    assert np.array_equal(pixels_of(tmp_path / "again.png"), green)
    arrays = np.load(taken(page, "npz", tmp_path))
    assert arrays["arr_0"].shape == (4, 8, 8, 3) and arrays["arr_1"].tolist() == [3] * 4
    with Image.open(taken(page, "gif", tmp_path)) as film:
        assert film.n_frames == 5  # four steps, and the pictures

    # one of them, with a recipe of its own
    page.locator("#gallery .thumbnail-lg").nth(1).click()
    expect(page.locator("#chosen")).to_contain_text(re.compile(r"Chosen: 3 · seed 12 · loss \S+ → \S+"))
    one = taken(page, "one", tmp_path)
    assert recipe_of(one)["pictures"] == [{"label": "3", "seed": 12}]
    assert np.array_equal(pixels_of(one), arrays["arr_0"][1])
    page.locator("#keep").click()
    expect(page.locator("#seed input")).to_have_value("12")
    expect(draw(page)).to_contain_text("Pictures: 1, in")
    assert np.array_equal(np.load(taken(page, "npz", tmp_path))["arr_0"][0], arrays["arr_0"][1])

    # a reload finds settings and job again
    page.reload()
    expect(page.locator("#gallery .caption-label")).to_have_text(["3 · seed 12"])
    expect(page.locator("#seed input")).to_have_value("12")
    expect(page.locator("#by").get_by_label("Colour", exact=True)).to_be_checked()
    expect(page.locator("#color-strength input[type=number]")).to_have_value("2")

    # and another browser finds them in the picture
    other = opened()
    fold(other, "more")
    other.locator("#recipe input[type=file]").set_input_files(path)
    expect(other.locator("#status")).to_contain_text("Settings loaded.")
    expect(other.locator("#seed input")).to_have_value("11")
    draw(other)
    assert np.array_equal(pixels_of(taken(other, "png", tmp_path)), green)


# ---- each control ----------------------------------------------------------------------------------------------------


def test_each_setting_reaches_the_drawing(opened: Open, tmp_path: Path) -> None:
    page = opened()
    only_label(page, "5")
    fold(page, "more")
    page.locator("#solver input").click()
    page.get_by_role("option", name="ddim").click()
    page.locator("#steps input").fill("3")
    page.locator("#guidance input").fill("2.5")
    for kind in ("Brightness", "Symmetry", "Sentence", "Own loss: mine.py:redness"):
        page.locator("#by").get_by_label(kind, exact=True).check()
    page.locator("#brightness input[type=number]").fill("0.7")
    page.locator("#mirror").get_by_label("up like down").check()
    page.locator("#sentence textarea, #sentence input").fill("a red three")
    page.locator("#own-strength input[type=number]").fill("0.5")
    expect(draw(page)).to_contain_text("Pictures: 1, in")
    recipe = recipe_of(taken(page, "png", tmp_path))
    assert (recipe["solver"], recipe["steps"], recipe["guidance_scale"]) == ("ddim", 3, 2.5)
    names = [text.partition("=")[0].rpartition("/")[2] for text in recipe["steer"]]
    assert names == ["brightness", "symmetry", "clip", "mine.py:redness:0.5"]
    assert recipe["steer"][:2] == ["brightness=0.7", "symmetry=up-down"] and "clip=a red three,model=" in recipe["steer"][2]


def test_a_picture_and_a_painted_mask(opened: Open, diffsteer: Diffsteer, tmp_path: Path, shots: Path) -> None:
    page = opened()
    only_label(page, "7")
    page.locator("#each").get_by_label("2", exact=True).check()
    page.locator("#by").get_by_label("Keep a part (mask)").check()
    Image.fromarray(np.full((16, 16, 3), (20, 90, 200), np.uint8)).save(tmp_path / "blue.png")
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "blue.png")
    expect(page.locator("#seen img")).to_be_visible()
    refused(page, "Paint a part")
    canvas = page.locator("#mask canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + box["height"] - 5, steps=12)
    page.mouse.up()
    expect(draw(page)).to_contain_text("Pictures: 2, in")
    page.screenshot(path=shots / "mask-1280.png", full_page=True)
    drawn = np.load(taken(page, "npz", tmp_path))["arr_0"]
    kept = (drawn == np.array([20, 90, 200])).all(-1).all(0)
    assert kept[:, :4].all() and not kept.all()  # the left half was not painted
    # with the picture and the mask beside it, the command line does it too
    words = command_of(page)
    words[words.index("--out") + 1] = "shell.npz"
    mask = taken(page, "mask-file", tmp_path)
    assert mask.name == "mask.png" and set(np.unique(pixels_of(mask))) == {0, 255}
    assert diffsteer(*words[1:]).code == 0
    assert np.array_equal(np.load(tmp_path / "shell.npz")["arr_0"], drawn)
    # a form in place of paint; a picture that was drawn in place of one's own
    page.locator("#preset input").click()
    page.get_by_role("option", name="upper half").click()
    page.locator("#gallery .thumbnail-lg").first.click()
    page.locator("#use").click()
    expect(page.locator("#seen img")).to_be_visible()


def test_a_sheet_of_one_setting(opened: Open, tmp_path: Path, shots: Path) -> None:
    page = opened()
    only_label(page, "3")
    page.locator("#by").get_by_label("Symmetry").check()
    fold(page, "sweep")
    page.locator("#sweep-key input").click()
    page.get_by_role("option", name="strength of all steers").click()
    expect(page.locator("#sweep-values textarea, #sweep-values input")).to_have_value("0,0.5,1,2,4")
    expect(draw(page, "#draw-sheet")).to_contain_text("The sheet is ready")
    expect(page.locator("#sheet img")).to_be_visible()
    page.screenshot(path=shots / "sheet-1280.png", full_page=True)
    assert recipe_of(taken(page, "png", tmp_path))["sweep"] == "strength=0,0.5,1,2,4"


def test_examples_set_the_page(opened: Open) -> None:
    page = opened()
    page.get_by_role("button", name="In green").click()
    expect(page.locator("#by").get_by_label("Colour", exact=True)).to_be_checked()
    expect(page.locator("#color-strength input[type=number]")).to_be_visible()
    page.get_by_role("button", name="Four of “3”").click()
    expect(page.locator("#by").get_by_label("Colour", exact=True)).not_to_be_checked()
    expect(page.locator("#labels").get_by_label("3", exact=True)).to_be_checked()


def test_it_can_be_watched_and_stopped(opened: Open, shots: Path) -> None:
    page = opened()
    page.locator("#each").get_by_label("4", exact=True).check()
    page.locator("#by").get_by_label("Colour", exact=True).check()  # by gradients, which take long enough to be watched
    fold(page, "more")
    page.locator("#steps input").fill("250")
    page.locator("#draw").click()
    expect(page.locator("#noisy img")).to_be_visible()
    expect(page.locator("#clean img")).to_be_visible()
    first = page.locator("#clean img").get_attribute("src")
    expect(page.locator("#clean img")).not_to_have_attribute("src", str(first))
    expect(page.locator("#draw")).to_be_disabled()
    page.screenshot(path=shots / "running-1280.png", full_page=True)
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_contain_text("Stopped")
    expect(page.locator("#draw")).to_be_enabled()
    expect(page.locator("#stop")).to_be_disabled()
    page.locator("#steps input").fill("2")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Pictures: 40, in")


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_what_is_no_picture_is_told_of(opened: Open, tmp_path: Path) -> None:
    page = opened()
    page.locator("#by").get_by_label("Like a picture").check()
    (tmp_path / "cat.png").write_bytes(b"I am no picture")
    for path, words in ((tmp_path / "cat.png", "cat.png is no PNG, JPEG or WebP"), (bomb(tmp_path / "bomb.png"), "9400×9400 pixels")):
        page.locator("#upload input[type=file]").set_input_files(path)
        expect(page.locator("#status")).to_contain_text(words)
        expect(page.locator("#upload input[type=file]")).to_be_attached()
    refused(page, "Give a picture first")


def test_a_killed_job_leaves_the_app_running_and_is_told_of(app: Served, opened: Open) -> None:
    page = opened()
    fold(page, "more")
    page.locator("#steps input").fill("250")
    page.locator("#draw").click()
    expect(page.locator("#noisy img")).to_be_visible()
    for child in psutil.Process(app.process.pid).children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.send_signal(signal.SIGKILL)
    expect(page.locator("#status")).to_contain_text("The drawing process was killed")
    page.locator("#steps input").fill("2")
    expect(draw(page)).to_contain_text("Pictures: 10, in")


def test_eight_people_at_once(opened: Open, tmp_path: Path) -> None:
    pages = [opened() for _ in range(8)]
    for number, page in enumerate(pages):
        only_label(page, str(number))
        page.locator("#seed input").fill(str(100 + number))
    for page in pages:
        page.locator("#draw").click()
    for number, page in enumerate(pages):
        expect(page.locator("#status")).to_contain_text("Pictures: 1, in")
        expect(page.locator("#gallery .caption-label")).to_have_text([f"{number} · seed {100 + number}"])


# ---- how it looks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_overlaps_or_is_cut_off(opened: Open, shots: Path, language: str, width: int) -> None:
    page = opened(width=width, locale={"en": "en-US", "zh": "zh-CN"}[language])
    assert page.url.endswith("/zh") == (language == "zh")
    page.screenshot(path=shots / f"first-{language}-{width}.png", full_page=True)
    for box in page.locator("#by input[type=checkbox]").all():
        box.check()
    for elem_id in ("more", "sweep", "same"):
        fold(page, elem_id)
    page.locator("#gallery .thumbnail-lg").first.click()
    expect(page.locator("#chosen")).to_be_visible()
    page.wait_for_timeout(300)  # folds open at leisure
    page.screenshot(path=shots / f"open-{language}-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate(UNDER_ARROWS) == []
    shown = page.locator("body").inner_text()
    assert not re.search(r"\b(draw|result|steer|sweep|state|wrong|page)\.[a-z_]+\b", shown)
    if language == "zh":
        assert "生成" in shown and page.evaluate("document.documentElement.lang").startswith("zh")
        page.locator("#language").click()
        expect(page.locator("#draw")).to_have_text("Draw")  # though the browser would rather read Chinese


CONTRAST = """() => {
  const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number).slice(0, 3)
    .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = one => { for (let at = one; at; at = at.parentElement) { const color = getComputedStyle(at).backgroundColor;
    const parts = color.match(/[\\d.]+/g).map(Number); if (parts.length < 4 || parts[3] > 0.99) return color; }
    return 'rgb(255,255,255)'; };
  const found = {};
  for (const one of document.querySelectorAll('button, label span, .status, .quiet, h1, .about, a, .painter-words')) {
    if (one.offsetParent === null || !one.innerText.trim() || one.disabled || one.closest('button:disabled')) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found[one.innerText.trim().slice(0, 30)] = ratio.toFixed(2);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_on_their_grounds(opened: Open, shots: Path, scheme: str) -> None:
    page = opened("/?lang=en&__theme=" + scheme, color_scheme=scheme)
    for box in page.locator("#by input[type=checkbox]").all():
        box.check()
    fold(page, "more")
    page.wait_for_timeout(300)
    page.screenshot(path=shots / f"{scheme}-1280.png", full_page=True)
    assert json.loads(json.dumps(page.evaluate(CONTRAST))) == {}
