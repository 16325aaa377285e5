"""Mixtures of denoisers' answers, in closed form: label guidance, its interval and rescaling, thresholds, autoguidance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffsteer.diffusion.process import PROCESSES, Process
from diffsteer.sampling.draw import How, Job, draw
from diffsteer.sampling.folder import load_model
from diffsteer.steering.mixing import DenoiserLike, Mixing, autoguided, clipped, label_guided, levels_at, mixed, thresholded

NULL = 3
FLOW = Process("flow")  # the noise level of t is sigma / sqrt(alpha^2 + sigma^2), sigma = t / 1000


class Watched:
    """A denoiser whose x0 is told by label, `x_t + label + slope * x_t`, and who remembers what it was asked."""

    def __init__(self, slope: float = 0.0) -> None:
        self.slope, self.asked = slope, list[tuple[Tensor, Tensor, Tensor | None]]()

    def __call__(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        self.asked.append((x_t, torch.as_tensor(t), cond))
        label = torch.zeros(len(x_t)) if cond is None else cond.to(x_t)
        return x_t * (1 + self.slope * label[:, None, None, None]) + label[:, None, None, None]


def noise(count: int = 2) -> Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))


# ---- label guidance --------------------------------------------------------------------------------------------------


def test_label_guidance_is_one_doubled_batch() -> None:
    model, x = Watched(), noise()
    found = label_guided(model, 4.0, NULL)(x, torch.tensor(500.0), torch.tensor([1, 2]))
    torch.testing.assert_close(found, x + NULL + 4 * (torch.tensor([1.0, 2.0])[:, None, None, None] - NULL))
    (asked,) = model.asked
    assert asked[2] is not None and asked[2].tolist() == [NULL, NULL, 1, 2]
    assert torch.equal(asked[0], torch.cat([x, x])) and asked[1].tolist() == [500.0] * 4


@pytest.mark.parametrize(("t", "inside"), [(100.0, False), (260.0, True), (500.0, True), (640.0, True), (700.0, False), (1000.0, False)])
def test_outside_its_interval_nothing_is_doubled_and_nothing_mixed(t: float, inside: bool) -> None:
    """0.3 to 0.9: on flow's way t = 239 to 674."""
    model, x, cond = Watched(), noise(), torch.tensor([1, 2])
    guided = label_guided(model, 4.0, NULL, process=FLOW, interval=(0.3, 0.9))
    assert bool(0.3 <= levels_at(FLOW, torch.tensor(t)) <= 0.9) == inside
    found = guided(x, torch.tensor(t), cond)
    assert len(model.asked) == 1 and len(model.asked[0][0]) == (4 if inside else 2)
    assert torch.equal(found, Watched()(x, torch.tensor(t), cond)) == (not inside)


def test_each_picture_has_its_own_time_and_is_inside_or_not() -> None:
    x, cond, times = noise(4), torch.tensor([1, 2, 0, 2]), torch.tensor([100.0, 300.0, 640.0, 900.0])
    guided = label_guided(Watched(), 4.0, NULL, process=FLOW, interval=(0.3, 0.9))
    alone = torch.cat([guided(x[[i]], times[i], cond[[i]]) for i in range(4)])
    assert torch.equal(guided(x, times, cond), alone)
    assert not torch.equal(alone[1:3], Watched()(x, times, cond)[1:3])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_rescaling_brings_the_contrast_back(share: float) -> None:
    """Each picture's standard deviation becomes the conditional one's by this share, and its values keep their proportions."""
    model, x, cond = Watched(slope=0.5), noise(), torch.tensor([1, 2])
    plain = label_guided(model, 3.0, NULL)(x, torch.tensor(500.0), cond)
    rescaled = label_guided(model, 3.0, NULL, rescale=share)(x, torch.tensor(500.0), cond)
    contrast, before = (values.flatten(1).std(1) for values in (model(x, torch.tensor(0.0), cond), plain))
    assert not torch.allclose(before, contrast, rtol=0.1)
    torch.testing.assert_close(rescaled.flatten(1).std(1), share * contrast + (1 - share) * before)
    torch.testing.assert_close(rescaled, plain * (share * contrast / before + 1 - share)[:, None, None, None])


def test_guidance_without_labels_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="label guidance needs labels"):
        label_guided(Watched(), 2.0, NULL)(noise(), torch.tensor(500.0))


# ---- off is off ------------------------------------------------------------------------------------------------------


def test_scale_1_is_the_denoiser_itself() -> None:
    model, guide = Watched(), Watched()
    assert mixed(model, Mixing(), FLOW, NULL) is model
    assert mixed(model, Mixing(guidance_scale=1.0, guidance_interval=(0.2, 0.4), guidance_rescale=0.7), FLOW, NULL) is model
    assert mixed(model, Mixing(autoguidance_scale=1.0), FLOW, NULL, (guide, FLOW)) is model
    assert mixed(model, Mixing(autoguidance_scale=3.0), FLOW, NULL) is model, "without a guide there is nothing to go away from"


def test_scale_1_draws_the_same_pictures_bit_for_bit(small_model: object) -> None:
    model = load_model(str(small_model()))  # type: ignore[operator]
    jobs = [Job(label, label) for label in range(4)]
    plain = draw(model, jobs, How(steps=3)).pictures
    assert torch.equal(draw(model, jobs, How(steps=3, guidance_scale=1.0, autoguidance_scale=1.0), guide=model).pictures, plain)
    whole = How(steps=3, guidance_scale=3.0, guidance_interval=(0.0, 1.0), guidance_rescale=0.0)
    assert torch.equal(draw(model, jobs, whole).pictures, draw(model, jobs, How(steps=3, guidance_scale=3.0)).pictures)
    assert not torch.equal(draw(model, jobs, How(steps=3, guidance_scale=3.0)).pictures, plain)


def test_the_models_interval_goes_with_guidance_unless_another_is_asked_for(small_model: object) -> None:
    model = load_model(str(small_model(guidance_scale=3.0, guidance_interval=(0.3, 0.9))))  # type: ignore[operator]
    jobs = [Job(label, label) for label in range(4)]
    own = draw(model, jobs, How(steps=3)).pictures
    assert How().resolved(model.spec).guidance_interval == (0.3, 0.9)
    assert torch.equal(draw(model, jobs, How(steps=3, guidance_scale=3.0, guidance_interval=(0.3, 0.9))).pictures, own)
    assert not torch.equal(draw(model, jobs, How(steps=3, guidance_interval=(0.0, 1.0))).pictures, own)
    assert How(guidance_scale=1.0).resolved(model.spec).guidance_interval == (0.0, 1.0), "nothing guides, so nothing is refused"


# ---- thresholds ------------------------------------------------------------------------------------------------------


def test_clipping_holds_x0_in_the_range() -> None:
    answer = torch.tensor([-3.0, -1.0, 0.25, 1.5]).reshape(1, 1, 2, 2)
    assert clipped(lambda x, t, cond: answer)(noise(), torch.tensor(0.0)).flatten().tolist() == [-1, -1, 0.25, 1]


def test_dynamic_thresholding_is_a_quantile_of_each_picture() -> None:
    values = torch.arange(-50.0, 51.0)  # of |values|, 80 of 100 parts lie at or below 40
    pictures = torch.stack([values / 20, values / 100]).reshape(2, 1, 1, 101)
    found = thresholded(lambda x, t, cond: pictures, 0.8)(pictures, torch.tensor(0.0))
    torch.testing.assert_close(found[0].flatten(), (values / 40).clamp(-1, 1), msg="clipped at 2, and divided by it")
    assert torch.equal(found[1], pictures[1]), "a picture inside [-1, 1] is left alone"
    torch.testing.assert_close(thresholded(lambda x, t, cond: pictures, 1.0)(pictures, torch.tensor(0.0))[0].flatten(), values / 50)


def test_dynamic_thresholding_has_no_largest_batch() -> None:
    pictures = torch.zeros(2, 1, 1, 2**23 + 1)
    pictures[1] = 3
    found = thresholded(lambda x, t, cond: pictures, 0.9)(pictures, torch.tensor(0.0))
    assert found[0].max() == 0 and found[1].min() == 1


# ---- autoguidance ----------------------------------------------------------------------------------------------------


def test_autoguidance_goes_away_from_the_worse_model() -> None:
    x, cond, t = noise(), torch.tensor([1, 2]), torch.tensor(400.0)
    good, worse = Watched(), Watched(slope=0.5)
    found = autoguided(good, worse, 3.0, FLOW, FLOW)(x, t, cond)
    torch.testing.assert_close(found, worse(x, t, cond) + 3 * (good(x, t, cond) - worse(x, t, cond)))
    assert worse.asked[0][2] is cond


def ideal(process: Process, variance: float) -> DenoiserLike:
    """E[x0 | x_t] of N(0, variance), on this process."""

    def denoise(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        alpha, sigma = process.alpha_sigma(torch.as_tensor(t).double())
        return (alpha * variance / (alpha**2 * variance + sigma**2) * x_t.double()).to(x_t.dtype)

    return denoise


@pytest.mark.parametrize("ours", PROCESSES)
@pytest.mark.parametrize("theirs", PROCESSES)
def test_a_guide_of_another_process_is_asked_at_the_same_signal_to_noise_ratio(ours: str, theirs: str) -> None:
    """The same pictures seen through two processes: what the guide answers is what it would answer on ours."""
    process, other, x = Process(ours), Process(theirs), noise()
    for t in (100.0, 300.0, 600.0, 800.0, process.t_max):
        time = torch.tensor(t)
        found = autoguided(ideal(process, 0.5), ideal(other, 0.2), 2.5, process, other)(x, time, None)
        good, worse = (ideal(process, variance)(x, time, None) for variance in (0.5, 0.2))
        most = 0.03 if t == process.t_max else 1e-5  # the guide's noisiest time may be a little less noisy than ours
        torch.testing.assert_close(found, worse + 2.5 * (good - worse), rtol=1e-4, atol=most)


def test_autoguidance_goes_from_the_guided_model() -> None:
    """With label guidance both: the guide is asked with the label, and the guided answer goes away from it."""
    x, cond, t = noise(), torch.tensor([1, 2]), torch.tensor(400.0)
    good, worse = Watched(), Watched(slope=0.5)
    found = mixed(good, Mixing(guidance_scale=2.0, autoguidance_scale=3.0), FLOW, NULL, (worse, FLOW))(x, t, cond)
    guided = label_guided(Watched(), 2.0, NULL)(x, t, cond)
    torch.testing.assert_close(found, worse(x, t, cond) + 3 * (guided - worse(x, t, cond)))
