"""The order of an epoch: everything once, the same for the same seed, any piece on its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsteer.data.order import BLOCK, RUN, order_generator, shuffled, streamed


def test_generators_belong_to_their_parts() -> None:
    def draw(*parts: int | str) -> list[int]:
        return torch.randint(0, 2**31, (4,), generator=order_generator(*parts)).tolist()

    assert draw(7, "order", 1) == draw(7, "order", 1)
    assert (
        len({tuple(draw(*parts)) for parts in ((7, "order", 1), (7, "order", 2), (8, "order", 1), (7, "block", 1), (71, "order", ""))}) == 5
    )


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 5000), seed=st.integers(0, 2**40), epoch=st.integers(0, 100), cut=st.floats(0, 1))
def test_streamed_order_is_a_permutation_that_can_be_cut_anywhere(count: int, seed: int, epoch: int, cut: float) -> None:
    whole = streamed(count, seed, epoch, 0, count)
    assert torch.equal(whole.sort().values, torch.arange(count))
    middle = int(cut * count)
    assert torch.equal(torch.cat([streamed(count, seed, epoch, 0, middle), streamed(count, seed, epoch, middle, count)]), whole)


@pytest.mark.parametrize("count", [RUN - 1, RUN, RUN + 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_streamed_order_at_the_edges_of_runs_and_blocks(count: int) -> None:
    for epoch in range(8):  # the short last run lands in another place each time
        assert torch.equal(streamed(count, 0, epoch, 0, count).sort().values, torch.arange(count))


def test_epochs_and_seeds_differ() -> None:
    for order in (lambda seed, epoch: shuffled(500, seed, epoch), lambda seed, epoch: streamed(500, seed, epoch, 0, 500)):
        assert len({tuple(order(seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_a_streamed_block_reads_from_all_over_a_set_sorted_by_class() -> None:
    count, classes = 50_000, 10
    labels = torch.arange(count) * classes // count
    for start in (0, 10 * BLOCK):
        batch = labels[streamed(count, 0, 0, start, start + 128)]
        assert torch.bincount(batch, minlength=classes).min() >= 2


def test_a_streamed_block_reads_neighbours_together() -> None:
    rows = streamed(50_000, 0, 0, 0, BLOCK)
    assert len((rows // RUN).unique()) == BLOCK // RUN


def test_blocks_are_shuffled_differently() -> None:
    rows = streamed(4 * BLOCK, 0, 0, 0, 4 * BLOCK).reshape(4, BLOCK)
    insides = {tuple((block % RUN).tolist()) for block in rows}
    assert len(insides) == 4
