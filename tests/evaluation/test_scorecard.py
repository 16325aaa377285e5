"""The figure and the rows say what the counts say, and the worst pictures are those least likely to be what was asked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffsteer.data import pixels
from diffsteer.evaluation import scorecard
from diffsteer.evaluation.basis import Basis, Extractor, Reference
from diffsteer.evaluation.labels import LabelAccuracy, label_accuracy
from diffsteer.evaluation.report import table
from diffsteer.evaluation.scorecard import class_rows, confusion_figure, worst_pictures

BASIS = Basis(Extractor("plain", "", 0, 0.98, 100, "digits"), Reference("digits", "train", 1000, (), True, "f" * 64, (8, 8)), seed=0)


def accuracy(pairs: Sequence[tuple[int, int]], names: Sequence[str]) -> LabelAccuracy:
    """Of (asked, found) pairs."""
    asked, found = torch.tensor(pairs).T
    return label_accuracy(found, asked, names, BASIS)


NAMES = ("cat", "dog", "hen")
SOME = accuracy([(0, 0)] * 9 + [(0, 1)] + [(2, 2)] * 2 + [(2, 1)] * 5 + [(2, 0)], NAMES)


# ---- rows --------------------------------------------------------------------------------------------------------------


def test_rows_are_counted_by_hand() -> None:
    first, second = class_rows(SOME, NAMES)
    assert (first["asked"], first["most often taken for"], first["pictures"]) == ("cat", "dog (10.0%)", 10)
    assert str(first["right"]).startswith("90.0% ± ")
    assert (second["asked"], second["most often taken for"], second["pictures"]) == ("hen", "dog (62.5%)", 8)
    assert "| hen | 25.0% ± " in table([first, second])


def test_a_class_without_mistakes_is_taken_for_none() -> None:
    (row,) = class_rows(accuracy([(1, 1)] * 4, NAMES), NAMES)
    assert row["most often taken for"] is None and row["asked"] == "dog"


# ---- the matrix ----------------------------------------------------------------------------------------------------------


def cells(image: Image.Image, rows: int, columns: int) -> Tensor:
    """The colour of each cell near its corner, where nothing is written, int64 [rows, columns, 3]: the frame is the one dark box."""
    values = pixels.from_pil(image).long()
    dark = (values.sum(0) < 100).double()
    across, down = (dark.mean(1) > 0.3).nonzero()[:, 0], (dark.mean(0) > 0.3).nonzero()[:, 0]
    top, bottom, left, right = (int(x) for x in (across.min(), across.max(), down.min(), down.max()))
    y = [int(top + (bottom - top) * (row + 0.15) / rows) for row in range(rows)]
    x = [int(left + (right - left) * (column + 0.15) / columns) for column in range(columns)]
    return values[:, y][:, :, x].permute(1, 2, 0)


def test_the_figure_shows_right_in_blue_wrong_in_red_and_the_darker_the_more() -> None:
    shown = cells(confusion_figure(SOME, NAMES), 2, 3)
    red, blue = shown[..., 0], shown[..., 2]
    counts = torch.tensor(SOME.confusion)[[0, 2]]  # a dog was never asked for
    right = torch.tensor([[True, False, False], [False, False, True]])
    assert ((blue > red) == (right & (counts > 0))).all()
    assert ((red > blue) == (~right & (counts > 0))).all()
    assert (shown[0, 2] == 255).all()  # no cat was taken for a hen
    light = shown.sum(2)
    assert light[0, 0] < light[1, 2] and light[1, 1] < light[0, 1] and light[1, 1] < light[1, 0]


@pytest.mark.parametrize("count", [2, 20, 21, 100])
def test_any_number_of_classes_fits(count: int) -> None:
    names = [
        ("$x_" if place % 7 == 0 else "a name that is much too long for a figure " if place % 5 == 0 else "") + str(place)
        for place in range(count)
    ]
    image = confusion_figure(accuracy([(place, (place + k // 3) % count) for place in range(count) for k in range(4)], names), names)
    shown = cells(image, count, count)
    assert (shown[range(count), range(count), 2] > shown[range(count), range(count), 0]).all()
    assert (
        shown[range(count), [(place + 1) % count for place in range(count)], 0]
        > shown[range(count), [(place + 1) % count for place in range(count)], 2]
    ).all()
    values = pixels.from_pil(image)
    edge = torch.cat([values[:, 0].flatten(), values[:, -1].flatten(), values[:, :, 0].flatten(), values[:, :, -1].flatten()])
    assert (edge == 255).all(), "nothing is cut off"
    assert max(image.size) < 2600


def test_the_numbers_are_shares_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[tuple[int, int], str] = {}

    class Axes:
        def text(self, column: int, row: int, text: str, **_: object) -> None:
            said[row, column] = text

    scorecard._write_shares(Axes(), torch.tensor([[0.9, 0.1, 0.0], [0.004, 0.371, 0.625]]))
    assert said == {(0, 0): "90", (0, 1): "10", (1, 0): "<1", (1, 1): "37", (1, 2): "62"}


# ---- the worst pictures --------------------------------------------------------------------------------------------------


def test_the_least_likely_come_first_and_say_what_they_look_like(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 8, 8) * 60
    probabilities = torch.tensor([[0.9, 0.05, 0.05], [0.02, 0.9, 0.08], [0.3, 0.4, 0.3], [0.6, 0.3, 0.1]]).double()
    told: dict[str, object] = {}

    def grid(pictures: Tensor, **more: object) -> Image.Image:
        told.update(more, pictures=pictures)
        return pixels.Image.new("L", (1, 1))

    monkeypatch.setattr("diffsteer.evaluation.scorecard.pixels.grid", grid)
    worst_pictures(drawn, torch.tensor([0, 0, 2, 1]), probabilities, NAMES, most=3)
    assert told["captions"] == ["asked cat, looks like dog 90%", "asked hen, looks like dog 40%", "asked dog, looks like cat 60%"]
    assert torch.equal(told["pictures"], drawn[[1, 2, 3]])  # type: ignore[arg-type]
    assert told["title"] == "Least like what was asked, 3 of 4"


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 64)])
def test_the_captions_fit_beneath_their_pictures(channels: int, side: int) -> None:
    """A cell is at least as wide as its caption, which is shortened otherwise."""
    names = ("ankle-boot", "t-shirt of wool")
    drawn, asked = torch.zeros(5, channels, side, side, dtype=torch.uint8), torch.tensor([0, 0, 1, 1, 0])
    probabilities = torch.tensor([[0.1, 0.9]] * 5).double()
    sheet = worst_pictures(drawn, asked, probabilities, names, columns=2)
    wide = pixels._text_width("asked ankle-boot, looks like t-shirt of wool 90%", pixels.CAPTION_SIZE)
    assert sheet.width >= 2 * wide
    assert sheet.mode == ("L" if channels == 1 else "RGB")
