"""Which pictures are scored: labels in the shares that the real ones have, the same for every count."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffsteer.data.images import load_pictures
from diffsteer.diffusion.denoiser import ModelSpec
from diffsteer.diffusion.process import Process
from diffsteer.errors import Mistake
from diffsteer.evaluation.frechet import frechet_distance
from diffsteer.judging import labels_left, labels_scored, scored_jobs


def folder_of(where: Path, **counts: int) -> str:
    for name, count in counts.items():
        (where / name).mkdir(parents=True)
        for index in range(count):
            Image.new("L", (8, 8), 10 * index % 256).save(where / name / f"{index}.png")
    return str(where)


def spec_of(*names: str) -> ModelSpec:
    return ModelSpec(Process("flow"), "x0", 8, 8, 1, conditioning="channels", label_names=names)


def test_equal_classes_come_in_turn() -> None:
    jobs = scored_jobs({0: 7, 1: 7, 4: 7}, 8)
    assert [job.label for job in jobs] == [0, 1, 4, 0, 1, 4, 0, 1]
    assert [job.seed for job in jobs] == list(range(8))
    assert [(job.label, job.seed) for job in scored_jobs({}, 3, first=2)] == [(None, 2), (None, 3), (None, 4)]


@pytest.mark.parametrize("real", [{0: 90, 1: 10}, {0: 5923, 1: 6742, 2: 5958, 3: 6131}, {0: 1, 1: 2, 2: 997}])
def test_labels_keep_the_shares_of_the_real_ones(real: dict[int, int]) -> None:
    """Of every first N no class is more than a picture and a half from its share, and the count does not change who comes first."""
    jobs, total = scored_jobs(real, 400), sum(real.values())
    for count in range(1, 401):
        given = Counter(job.label for job in jobs[:count])
        assert all(abs(given[label] - count * pictures / total) < 1.5 for label, pictures in real.items())
    assert scored_jobs(real, 100) == jobs[:100]
    assert scored_jobs(real, 100, first=37) == jobs[37:137]


def test_a_model_that_draws_each_class_as_it_is_is_no_further_than_real_ones() -> None:
    """Two classes far apart, nine pictures of ten in one: equal shares would be half of the way between them squared away."""
    generator, places = torch.Generator().manual_seed(0), torch.tensor([[0.0, 0.0], [4.0, 0.0]])

    def pictures(labels: torch.Tensor) -> torch.Tensor:
        return places[labels] + torch.randn(len(labels), 2, generator=generator)

    real = pictures((torch.arange(4000) < 400).long())
    drawn = pictures(torch.tensor([job.label for job in scored_jobs({0: 3600, 1: 400}, 4000)]))
    in_turn = pictures(torch.arange(4000) % 2)
    assert frechet_distance(drawn, real) < 0.02
    assert frechet_distance(in_turn, real) > 2


def test_labels_are_those_with_real_pictures(tmp_path: Path) -> None:
    data = load_pictures(folder_of(tmp_path, cat=6, dog=2))
    assert data.class_counts == (6, 2)
    spec = spec_of("bird", "dog", "cat")
    assert labels_scored(spec, data) == {1: 2, 2: 6}
    assert "1 of the model's" in labels_left(spec, data)[0] and "bird" in labels_left(spec, data)[0]
    assert labels_scored(ModelSpec(Process("flow"), "x0", 8, 8, 1), data) == {}
    with pytest.raises(Mistake, match="pictures of none of them"):
        labels_scored(spec_of("bird", "fish"), data)
    some = data.relabelled(["ant", "cat", "dog"])
    assert some.class_counts == (0, 6, 2)
    assert labels_scored(spec_of("ant", "cat"), some) == {1: 6}


def test_data_without_classes_is_drawn_in_turn(tmp_path: Path) -> None:
    data = load_pictures(folder_of(tmp_path, only=4), size=(8, 8))
    bare = load_pictures(str(Path(data.source) / "only"))
    assert bare.class_counts == ()
    assert labels_scored(spec_of("a", "b"), bare) == {0: 1, 1: 1}
