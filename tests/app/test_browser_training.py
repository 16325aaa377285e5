"""Training in a real browser: from a folder of pictures to a model that is steered, runs that are stopped, killed, found again, compared.

Skipped where there is no Chromium. Screenshots go into the folder named by SCREENSHOTS, else into pytest's own.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from app.browsing import OVERLAPS, UNDER_ARROWS, WIDTHS, Open, draw, fold, only_label, pages_of, taken
from app.serving import Served, served
from commandline import pixels_of, recipe_of
from diffsteer import runprocess

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the app is started: a folder of pictures of two classes, and one with a file that is no picture."""
    place = tmp_path_factory.mktemp("training")
    for name, shade in (("dark", 40), ("light", 210)):
        (place / "shades" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(np.full((8, 8), shade + number, np.uint8)).save(place / "shades" / name / f"{number}.png")
    (place / "broken").mkdir()
    (place / "broken" / "cat.png").write_bytes(b"I am no picture")
    return place


@pytest.fixture(scope="module")
def trainer(small_model: Callable[..., Path], place: Path) -> Iterator[Served]:
    with served(small_model(data="digits-color"), place, "--data", "shades", "--data", "broken") as running:
        yield running


@pytest.fixture
def opened(trainer: Served, browser: Browser) -> Iterator[Open]:
    with pages_of(trainer, browser, forgiven="ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|network error|Failed to fetch") as open_page:
        yield open_page


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def choose(page: Page, elem_id: str, option: str) -> None:
    page.locator(f"#{elem_id} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def check(page: Page, data: str) -> None:
    choose(page, "train-data", data)
    page.locator("#train-look").click()


def begin(page: Page, data: str, name: str, budget: str = "10m", start: str = "the defaults") -> None:
    tab(page, "Train")
    choose(page, "train-how", start)
    page.locator("#train-budget input").fill(budget)
    page.locator("#train-budget input").press("Enter")
    page.locator("#train-name input, #train-name textarea").fill(name)
    check(page, data)
    expect(page.locator("#train-start")).to_be_enabled()
    page.locator("#train-start").click()


def running(page: Page, name: str) -> None:
    expect(page.locator("#train-status")).to_contain_text(re.compile(rf"{name}: step \d+ of"))


def stopped(page: Page, name: str) -> None:
    page.locator("#train-stop").click()
    expect(page.locator("#train-status")).to_contain_text(f"{name}: stopped at step")


def test_train_sample_steer_green_take_away_and_find_again(opened: Open, trainer: Served, place: Path, tmp_path: Path, shots: Path) -> None:
    page = opened()
    tab(page, "Train")
    expect(page.locator("#train-start")).to_be_disabled()
    begin(page, "digits-color", "colours", "20s")
    expect(page.locator("#train-sheet img")).to_be_visible()
    expect(page.locator("#train-facts")).to_contain_text("1,797 pictures of 8×8 pixels, colour.")
    running(page, "colours")
    expect(page.locator("#train-preview img")).to_be_visible()
    page.screenshot(path=shots / "training-1280.png", full_page=True)
    expect(page.locator("#train-status")).to_contain_text("colours: finished")
    expect(page.locator("#train-loss canvas, #train-loss svg").first).to_be_visible()
    page.screenshot(path=shots / "trained-1280.png", full_page=True)
    assert (place / "runs" / "colours" / "model" / "model_index.json").is_file()

    # the page comes back with the run's model
    page.locator("#train-open").click()
    expect(page.locator("#head .about")).to_contain_text("runs/colours")
    expect(page.locator("#status")).to_contain_text("Drawn beforehand")
    only_label(page, "3")
    page.locator("#each").get_by_label("4", exact=True).check()
    draw(page)
    plain = pixels_of(taken(page, "png", tmp_path))
    page.locator("#by").get_by_label("Colour", exact=True).check()
    draw(page)
    page.screenshot(path=shots / "trained-green-1280.png", full_page=True)
    path = taken(page, "png", tmp_path)
    green = pixels_of(path)
    assert (green[..., 1].astype(int) - green[..., 0]).mean() > (plain[..., 1].astype(int) - plain[..., 0]).mean() + 3
    assert recipe_of(path)["model"] == "runs/colours"

    # by its seed it is drawn again after a reload
    page.locator("#gallery .thumbnail-lg").nth(2).click()
    one = taken(page, "one", tmp_path)
    page.locator("#keep").click()
    page.reload()
    expect(page.locator("#seed input")).to_have_value("2")
    draw(page)
    assert np.array_equal(np.load(taken(page, "npz", tmp_path))["arr_0"][0], pixels_of(one))


def test_what_cannot_be_trained_on_is_told_of_before(opened: Open, shots: Path) -> None:
    page = opened()
    tab(page, "Train")
    check(page, "broken")
    expect(page.locator("#train-facts .wrong")).to_contain_text("cat.png")
    expect(page.locator("#train-start")).to_be_disabled()
    page.screenshot(path=shots / "broken-1280.png", full_page=True)
    check(page, "shades")
    expect(page.locator("#train-facts")).to_contain_text("2 classes: dark 6, light 6")


def test_a_run_is_stopped_goes_on_is_killed_and_is_found_by_others(opened: Open, place: Path, shots: Path) -> None:
    page = opened()
    begin(page, "shades", "shades")
    running(page, "shades")
    other = opened()  # as from another device
    tab(other, "Train")
    running(other, "shades")
    begin(other, "digits", "second")
    expect(other.locator("#train-facts")).to_contain_text("shades is being trained; one at a time.")
    stopped(page, "shades")
    page.locator("#train-resume").click()
    running(page, "shades")
    there = runprocess.read(place / "runs" / "shades")
    assert there is not None
    psutil.Process(there.pid).kill()
    expect(page.locator("#train-status .wrong")).to_contain_text("shades: ended unexpectedly at step")
    page.screenshot(path=shots / "killed-1280.png", full_page=True)
    expect(page.locator("#train-resume")).to_be_enabled()
    tab(page, "Draw")
    expect(draw(page)).to_contain_text("Pictures: 10, in")


def test_each_setting_reaches_the_run(opened: Open, place: Path) -> None:
    page = opened()
    tab(page, "Train")
    fold(page, "train-more")
    for elem_id, value in (("train-size", "16"), ("train-batch_size", "4"), ("train-lr", "0.002"), ("train-seed", "7")):
        page.locator(f"#{elem_id} input, #{elem_id} textarea").fill(value)
    begin(page, "shades", "set")
    running(page, "set")
    fold(page, "train-same")
    words = page.locator("#train-same .cm-content").inner_text()
    for flag in ("--size 16", "--batch-size 4", "--lr 0.002", "--seed 7", "--budget 10m", "--out runs/set"):
        assert flag in words
    stopped(page, "set")
    saved = (place / "runs" / "set" / "settings.yaml").read_text()
    assert "batch_size: 4" in saved and "lr: 0.002" in saved and "seed: 7" in saved


def test_the_page_s_model_is_fine_tuned(opened: Open, place: Path) -> None:
    page = opened()
    tab(page, "Train")
    start = page.locator("#train-how input")
    start.click()
    page.get_by_role("option", name=re.compile("fine-tune this page")).click()
    name = start.input_value()
    begin(page, "digits-color", "tuned", start=name)
    running(page, "tuned")
    stopped(page, "tuned")
    assert "model:" in (place / "runs" / "tuned" / "settings.yaml").read_text()


@pytest.fixture(scope="module")
def two_runs(place: Path) -> None:
    """As from the command line."""
    for name, rate in (("slow", "0.0001"), ("quick", "0.01")):
        words = ["train", "shades", "--steps", "6", "--preview-every", "3", "--lr", rate, "--out", f"runs/{name}"]
        subprocess.run([sys.executable, "-m", "diffsteer.cli", *words], cwd=place, check=True, stdout=subprocess.DEVNULL)


def colours_in(png: bytes) -> set[tuple[int, ...]]:
    with Image.open(BytesIO(png)) as picture:
        return {color[:3] for _, color in picture.convert("RGB").getcolors(1 << 24)}


def parsed(css: str) -> tuple[int, ...]:
    return tuple(int(value) for value in re.findall(r"\d+", css)[:3])


@pytest.mark.usefixtures("two_runs")
def test_runs_are_compared(opened: Open, shots: Path) -> None:
    page = opened()
    tab(page, "Runs")
    page.locator("#runs-show").click()
    expect(page.locator("#runs-table tbody tr").first).to_be_visible()
    page.locator("#runs-chosen").get_by_label("slow", exact=True).check()
    for box in page.locator("#runs-chosen input[type=checkbox]").all():
        if box.get_attribute("name") not in ("slow", "quick"):
            box.uncheck()
    expect(page.locator("#runs-table tbody tr")).to_have_count(2)
    expect(page.locator("#runs-table")).to_contain_text("✓ finished")
    page.wait_for_timeout(600)  # the plot is drawn
    plot = colours_in(page.locator("#runs-loss").screenshot())
    theirs = [parsed(dot.evaluate("dot => getComputedStyle(dot).backgroundColor")) for dot in page.locator("#runs-table .line").all()]
    assert len(set(theirs)) == 2 and set(theirs) <= plot, "the table says which line is whose"
    expect(page.locator("#runs-previews .caption-label")).to_have_text(["quick · step 6", "slow · step 6"])
    page.locator("#runs-step input[type=number]").fill("2")
    page.locator("#runs-step input[type=number]").press("Enter")
    expect(page.locator("#runs-previews .caption-label")).to_have_text(["quick · step 3", "slow · step 3"])
    page.locator("#runs-compare").click()
    expect(page.locator("#runs-status")).to_contain_text("diffsteer compare runs/quick runs/slow")
    expect(page.locator("#runs-page table").first).to_contain_text("0.0001")
    page.screenshot(path=shots / "compared-1280.png", full_page=True)
    page.locator("#runs-chosen").get_by_label("slow", exact=True).uncheck()
    expect(page.locator("#runs-table tbody tr")).to_have_count(1)
    page.locator("#runs-compare").click()
    expect(page.locator("#runs-status")).to_contain_text("Choose two runs or more.")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.usefixtures("two_runs")
def test_nothing_overlaps_or_is_cut_off(opened: Open, shots: Path, language: str, width: int) -> None:
    page = opened(width=width, locale={"en": "en-US", "zh": "zh-CN"}[language])
    for number, name in enumerate(("train", "runs"), 1):
        page.get_by_role("tab").nth(number).click()
        if name == "train":
            for elem_id in ("train-more", "train-same"):
                fold(page, elem_id)
            expect(page.locator("#train-preview img")).to_be_visible()
        else:
            expect(page.locator("#runs-table tbody tr").first).to_be_visible()
        page.wait_for_timeout(600)  # folds open at leisure, plots are drawn
        page.screenshot(path=shots / f"{name}-{language}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.evaluate(OVERLAPS) == []
        assert page.evaluate(UNDER_ARROWS) == []
    shown = page.locator("body").inner_text()
    assert not re.search(r"\b(train|runs|state|wrong|page|long)\.[a-z_]+\b", shown)


def test_a_training_outlives_the_app(small_model: Callable[..., Path], browser: Browser, tmp_path: Path) -> None:
    model = small_model(data="digits-color")
    with served(model, tmp_path) as first, pages_of(first, browser) as open_page:
        page = open_page()
        begin(page, "digits", "long")
        running(page, "long")
    there = runprocess.read(tmp_path / "runs" / "long")
    assert there is not None and there.alive
    with served(model, tmp_path) as second, pages_of(second, browser) as open_page:
        page = open_page()
        tab(page, "Train")
        running(page, "long")
        stopped(page, "long")
    while there.alive:
        time.sleep(0.1)
