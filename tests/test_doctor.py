"""Planted faults are found, each by its own finding, and healthy runs raise none of them."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from commandline import Diffsteer, tree
from diffsteer import cli, doctor
from diffsteer.config import FROM_THE_BASE, FinetuneSettings, TrainSettings
from diffsteer.data.images import load_pictures
from diffsteer.data.memory import MemoryPictures
from diffsteer.data.pixels import to_signed
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.process import Process
from diffsteer.doctor import Looks, Run, look_at_pictures
from diffsteer.evaluation import symptoms
from diffsteer.evaluation.symptoms import by_weight
from diffsteer.recipebook import recipe_names, recipe_settings, train_settings
from diffsteer.runfolder import Resolved


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- losses and gradients --------------------------------------------------------------------------------------------


def falling(steps: int, rate: float, last: float = 0.02, noise: float = 0.05, seed: int = 0) -> list[float]:
    """Losses that fall like a power of the step, to `last`, with noise."""
    shape = torch.arange(1, steps + 1).double() ** -rate
    return (shape / shape[-1] * last * (1 + noise * torch.randn(steps, generator=random(seed)))).tolist()


# What the lessons printed, epoch by epoch, and what our own recipes showed: a third of a power at the end.
HEALTHY = [falling(1407, 0.35), falling(4690, 0.15), falling(240, 0.25), falling(1500, 0.2)]


def test_few_steps_are_told_by_their_number_and_by_a_loss_still_falling() -> None:
    short = symptoms.few_steps(falling(40, 0.3), constant_rate=False)
    assert short is not None and "40 optimizer steps" in short.seen and short.train == {"steps": 300} and short.goes_on
    steep = falling(400, 1.0)
    found = symptoms.few_steps(steep, constant_rate=True)
    assert found is not None and "--steps 800" in found.mend
    fall = 1 - math.fsum(steep[300:]) / math.fsum(steep[200:300])
    assert f"{fall:.0%}" in found.seen
    assert symptoms.few_steps(steep, constant_rate=False) is None  # a rate that falls to 0 makes any loss fall
    assert all(symptoms.few_steps(losses, constant_rate=True) is None for losses in HEALTHY)


def test_losses_that_are_not_finite_or_grow_are_told() -> None:
    losses, norms = falling(300, 0.3), [0.5] * 300
    assert symptoms.bad_losses(losses, norms, 1e-3) is None
    assert symptoms.bad_losses(losses, [*norms[:9], math.inf, *norms[10:]], 1e-3) is None  # a step that fp16 left out
    for broken in (([*losses[:50], math.nan, *losses[51:]], norms), (losses, [*norms[:50], math.nan, *norms[51:]])):
        found = symptoms.bad_losses(*broken, 1e-3)
        assert found is not None and found.seen == "nan at step 51" and found.train == {"lr": 3e-4, "clip": 1.0, "precision": "fp32"}
    grown = symptoms.bad_losses([*losses[:250], *(3 * loss for loss in losses[250:])], norms, 0.03)
    assert grown is not None and "grew" in grown.wrong and "--lr 0.01 " in grown.mend


def test_spikes_are_told_from_uneven_losses() -> None:
    losses = falling(400, 0.25)
    spiked = [loss * (5 if step in (150, 300) else 1) for step, loss in enumerate(losses)]
    unclipped, clipped = symptoms.spikes(spiked, 1e-3, None), symptoms.spikes(spiked, 1e-3, 1.0)
    assert unclipped is not None and unclipped.train == {"clip": 1.0} and unclipped.seen.startswith("2 losses")
    assert clipped is not None and clipped.train == {"lr": 3e-4}
    assert all(symptoms.spikes(losses, 1e-3, None) is None for losses in HEALTHY)
    uneven = (0.1 * torch.randn(2000, generator=random(1)).exp()).tolist()  # a batch of one picture
    assert sum(loss > 0.3 for loss in uneven) > 100 and symptoms.spikes(uneven, 1e-3, None) is None


def test_gradients_always_far_above_the_limit_are_told() -> None:
    found = symptoms.always_clipped([5.0] * 100, 1.0)
    assert found is not None and found.train == {"clip": 10.0}
    assert symptoms.always_clipped([5.0] * 100, None) is None
    assert symptoms.always_clipped([20.0] * 40 + [0.5] * 60, 1.0) is None  # the beginning of every run
    assert symptoms.always_clipped([1.2] * 100, 1.0) is None


def test_thin_classes_are_named() -> None:
    found = symptoms.thin_classes(["cat", "dog", "owl"], [200, 3, 0])
    assert found is not None and found.seen == "owl: 0, dog: 3" and found.wrong.startswith("2 classes have")
    assert symptoms.thin_classes(["cat", "dog"], [200, 30]) is None


@pytest.mark.parametrize(("tuned", "kind"), [(False, TrainSettings), (True, FinetuneSettings)])
def test_what_mends_a_run_is_a_flag_of_its_own_command(tuned: bool, kind: type[TrainSettings]) -> None:
    copies: Any = SimpleNamespace(rate=1.0, error=0.0, count=100, flip=False, baseline=SimpleNamespace(rate=0.0, error=0.0))
    black, grey = torch.zeros(50, 1, 8, 8, dtype=torch.uint8), torch.full((50, 1, 8, 8), 128, dtype=torch.uint8)
    real = torch.randint(0, 256, (50, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = [
        symptoms.copying(copies, 100, tuned),
        symptoms.wrong_range(grey, real, "x0", "signed", 1.0, 100, tuned),
        symptoms.wrong_range(black, real, "x0", "signed", 1.0, 100, tuned),
        symptoms.thin_classes(["cat", "dog"], [200, 3], tuned),
    ]
    known = set(kind.model_fields) - (FROM_THE_BASE if tuned else set())
    for finding in found:
        assert finding is not None and set(finding.train) <= known
        assert {flag.replace("-", "_") for flag in re.findall(r"--([a-z-]+)", finding.mend)} <= known


def test_an_old_average_is_told_by_its_loss() -> None:
    own = 0.1 + 0.02 * torch.randn(256, generator=random(0))
    found = symptoms.stale_average(own, own * 1.3, steps=200, ema_decay=0.9999)
    assert found is not None and 0.9 < found.train["ema_decay"] < 1 - 201**-0.75
    assert symptoms.stale_average(own, own * 1.01, 200, 0.9999) is None
    noisy = own + 0.2 * torch.randn(256, generator=random(1)) + 0.01
    assert symptoms.stale_average(own, noisy, 200, 0.9999) is None  # higher, and within its error


# ---- pictures --------------------------------------------------------------------------------------------------------


class Oracle(nn.Module):
    """The exact denoiser of these pictures, [K, C, H, W] in [-1, 1], its x0 changed by `then`."""

    def __init__(self, pictures: Tensor, spec: ModelSpec, then: Callable[[Tensor], Tensor] = lambda x0: x0) -> None:
        super().__init__()
        self.pictures, self.process, self.then = nn.Parameter(pictures, requires_grad=False), spec.process, then

    def forward(self, x: Tensor, t: Tensor) -> SimpleNamespace:
        alpha, sigma = self.process.alpha_sigma(t[0].double())
        x = x / self.process.input_scale(t[:1]).float()
        distances = torch.cdist(x.flatten(1).double(), float(alpha) * self.pictures.flatten(1).double()).square()
        shares = (-distances / (2 * float(sigma) ** 2)).softmax(1)
        return SimpleNamespace(sample=self.then((shares @ self.pictures.flatten(1).double()).float().view_as(x)))


class Blurs(Oracle):
    """The exact denoiser of a Gaussian with these pictures' mean and variance at each place: it shows every error of a solver."""

    def forward(self, x: Tensor, t: Tensor) -> SimpleNamespace:
        alpha, sigma = (float(value) for value in self.process.alpha_sigma(t[0].double()))
        mean, variance = self.pictures.mean(0), self.pictures.var(0)
        x = x / self.process.input_scale(t[:1]).float()
        return SimpleNamespace(sample=mean + alpha * variance / (alpha**2 * variance + sigma**2).clamp_min(1e-12) * (x - alpha * mean))


@pytest.fixture(scope="module")
def digits() -> MemoryPictures:
    """Half of the digits: what the runs here were trained on."""
    data = load_pictures("digits")
    assert isinstance(data, MemoryPictures)
    order = torch.randperm(data.count, generator=random(0))
    return replace(data, pixels=data.pixels[order[:900]], labels=None, label_names=())


@pytest.fixture(scope="module")
def others() -> Tensor:
    """The other half: what a model without a fault draws."""
    pixels = load_pictures("digits").at(range(1797)).pixels
    return to_signed(pixels[torch.randperm(1797, generator=random(0))[900:]])


def finished(**settings: Any) -> Run:
    """A run of 240 steps."""
    chosen = train_settings("digits", settings)
    resolved = Resolved(240, 24, 60, "f", 900, (), "", streamed=False, finished=True)
    return Run(chosen, resolved, tuple(falling(240, 0.25)), (0.5,) * 240)


Examined = Callable[..., dict[str, symptoms.Finding]]


@pytest.fixture
def examined(digits: MemoryPictures, others: Tensor) -> Examined:
    """What is found of an oracle's pictures, by kind, the worst first."""

    def look(
        pictures: Tensor = others,
        then: Callable[[Tensor], Tensor] = lambda x0: x0,
        process: str = "flow",
        kind: type[Oracle] = Oracle,
        **spec: Any,
    ) -> dict[str, Any]:
        made = ModelSpec(Process(process), "x0", 8, 8, 1, **spec)
        looks = Looks()
        look_at_pictures(Denoiser(kind(pictures, made, then), made), digits, finished(), "cpu", looks, lambda _: None)
        assert {"the range of values", "brightness", "copies"} <= set(looks.at) or any(map(torch.isnan, pictures.flatten()[:1]))
        return {each.kind: each for each in by_weight(looks.findings)}

    return look


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"solver": "euler", "steps": 40},
        {"solver": "unipc", "steps": 10},
        {"process": "cosine"},
        {"process": "linear", "solver": "ddim"},
    ],
    ids=lambda spec: "-".join(map(str, spec.values())),
)
def test_nothing_is_wrong_with_pictures_like_the_datas(examined: Examined, spec: dict[str, Any]) -> None:
    assert examined(**spec) == {}


def test_training_pictures_drawn_again_are_copies(examined: Examined, digits: MemoryPictures) -> None:
    found = examined(to_signed(digits.pixels))
    assert list(found) == ["copies"] and found["copies"].train == {"steps": 120, "dropout": 0.1}
    assert "100% of" in found["copies"].seen and "--flip" in found["copies"].mend


def test_brighter_pictures_drift(examined: Examined) -> None:
    found = examined(then=lambda x0: x0 + 0.15)
    assert list(found) == ["drift"] and "too bright" in found["drift"].wrong and found["drift"].goes_on
    assert examined(then=lambda x0: x0 + 0.02) == {}


def test_a_network_read_in_another_range_is_told(examined: Examined) -> None:
    half = examined(then=lambda x0: (x0 + 1) / 2)
    assert next(iter(half)) == "range" and "part of the range" in half["range"].wrong and "--pixel-range unit" in half["range"].mend
    piled = examined(then=lambda x0: 4 * x0 - 1)
    assert next(iter(piled)) == "range" and "saturated" in piled["range"].wrong


@pytest.mark.parametrize(("process", "solver", "steps"), [("cosine", "seed-004", 300), ("flow", "ddim", 1), ("linear", "ddpm", 3)])
def test_a_solver_that_does_not_suit_is_told(examined: Examined, process: str, solver: str, steps: int) -> None:
    found = examined(kind=Blurs, process=process, solver=solver, steps=steps)
    assert next(iter(found)) == "solver" and found["solver"].draw == ("--solver", "dpm++2m", "--steps", "50")
    assert f"{solver} in {steps} steps" in found["solver"].wrong
    assert "solver" not in examined(kind=Blurs, process=process)


def test_a_spacing_that_starts_too_late_is_told(examined: Examined) -> None:
    found = examined(kind=Blurs, process="linear", solver="ddim", steps=2, spacing="leading")
    assert "ddim in 2 steps with leading times" in found["solver"].wrong and "--spacing" in found["solver"].draw


def test_weights_that_are_not_finite_end_the_look(examined: Examined, others: Tensor) -> None:
    found = examined(torch.full_like(others, torch.nan))
    assert list(found) == ["weights"] and "1 of 1 tensors" in found["weights"].seen


def flat(values: Sequence[float], channels: int = 1) -> Tensor:
    """Pictures of one brightness each, with a little grain."""
    grain = torch.randn(len(values), channels, 8, 8, generator=random(3))
    return ((torch.tensor(values)[:, None, None, None] + 0.05 * grain).clamp(0, 1) * 255).to(torch.uint8)


def test_colours_and_the_spread_of_brightness_drift_too() -> None:
    usual = (0.5 + 0.12 * torch.randn(500, generator=random(4))).tolist()
    real, drawn = flat(usual, 3), flat(usual[:64], 3)
    told: dict[str, Any] = {"prediction": "eps", "guidance": 1.0, "steps": 500}
    assert symptoms.drift(drawn, real, **told) is None
    reddish = drawn.clone()
    reddish[:, 0] = (reddish[:, 0].int() + 30).clamp(0, 255).to(torch.uint8)
    found = symptoms.drift(reddish, real, **told)
    assert found is not None and found.wrong == "The colours drift" and "red" in found.seen and found.train == {"prediction": "v"}
    guided = symptoms.drift(reddish, real, **{**told, "guidance": 4.0})
    assert guided is not None and guided.draw == ("--guidance-scale", "1")
    alike = symptoms.drift(flat([0.5] * 64, 3), real, **told)
    assert alike is not None and "same brightness" in alike.wrong
    wild = symptoms.drift(flat(torch.linspace(0.05, 0.95, 64).tolist(), 3), real, **told)
    assert wild is not None and "wanders" in wild.wrong


# ---- the command -----------------------------------------------------------------------------------------------------

Planted = Callable[..., Path]


@pytest.fixture
def planted(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """A copy of the run `trained`, as if it had been longer: settings, what was resolved and losses changed. Few pictures are drawn."""
    monkeypatch.setattr(doctor, "PICTURES", doctor.LEAST)

    def make(losses: Sequence[float] = HEALTHY[2], norm: float = 0.5, resolved: dict[str, Any] | None = None, **settings: Any) -> Path:
        out = tmp_path / "run"
        shutil.copytree(trained, out)
        values = yaml.safe_load((out / "settings.yaml").read_text())
        values["settings"].update({"steps": len(losses), **settings})
        values["resolved"].update({"steps": len(losses), **(resolved or {})})
        (out / "settings.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        rows = [{"step": step, "loss": loss, "grad_norm": norm, "lr": 0.001, "seconds": 1.0} for step, loss in enumerate(losses, 1)]
        (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return out

    return make


def kinds(values: dict[str, Any]) -> list[str]:
    return [each["kind"] for each in values["findings"]]


def test_a_short_run_is_told_to_go_on_and_nothing_is_changed(diffsteer: Diffsteer, trained: Path) -> None:
    before = tree(trained)
    ended = diffsteer("doctor", trained)
    assert (ended.code, ended.err) == (0, "") and tree(trained) == before
    first, *lines = ended.out.splitlines()
    assert first.startswith("drawing ") and "pictures by dpm++2m in 20 steps" in first and first.endswith(" s")
    assert lines[0].startswith("steps ") and "4 optimizer steps" in lines[0] and "--steps 300" in lines[0]
    words = shlex.split(ended.last.removeprefix("next: "))
    assert words[:3] == ["diffsteer", "train", "digits"] and words[words.index("--steps") + 1] == "300" and words[-1] == str(trained)
    assert cli.run([*words[1:], "--dry-run"]) == 0


def test_an_unfinished_run_goes_on_by_its_own_command(diffsteer: Diffsteer, planted: Planted) -> None:
    out = planted(HEALTHY[2][:100], resolved={"steps": 240, "finished": False})
    values = diffsteer("doctor", out, "--json").json()
    assert kinds(values)[0] == "unfinished" and "steps" not in kinds(values)
    assert values["findings"][0]["seen"] == "step 100 of 240"
    assert values["next"].endswith(f"--out {out}") and "--steps 100" in values["next"]


def test_planted_losses_make_the_command_that_mends_them(diffsteer: Diffsteer, planted: Planted) -> None:
    losses = [*HEALTHY[2][:200], *(4 * loss for loss in HEALTHY[2][200:])]
    out = planted(losses, norm=7.0, lr=0.01, clip=1.0)
    values = diffsteer("doctor", out, "--json").json()
    assert kinds(values)[0] == "loss" and kinds(values)[-1] == "clip" and values["path"] == str(out)
    words = shlex.split(values["next"])
    assert words[words.index("--lr") + 1] == "0.003" and words[-1] == f"{out}-2"
    assert cli.run([*words[1:], "--dry-run"]) == 0


def test_the_average_is_compared_with_the_weights_of_the_checkpoint(diffsteer: Diffsteer, planted: Planted, tmp_path: Path) -> None:
    out = planted()
    checkpoint = out / "checkpoints" / "step-00000240"
    (out / "checkpoints" / "step-00000004").rename(checkpoint)
    weights = out / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(weights), checkpoint / "model.safetensors")
    alike = diffsteer("doctor", out, "--json").json()
    assert "the average of the weights" in alike["looked_at"] and "average" not in kinds(alike)
    late = {name: tensor * 10 if name.startswith("conv_out") else tensor for name, tensor in load_file(weights).items()}
    save_file(late, weights, {"format": "pt"})
    stale = diffsteer("doctor", out, "--json").json()
    assert "average" in kinds(stale)


def test_broken_weights_are_told_of_a_model_folder_as_of_its_run(diffsteer: Diffsteer, planted: Planted) -> None:
    out = planted()
    weights = out / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.weight"][0] = torch.nan
    save_file(tensors, weights, {"format": "pt"})
    values = diffsteer("doctor", out, "--json").json()
    assert kinds(values) == ["weights"] and "conv_in.weight" in values["findings"][0]["seen"]
    assert "--lr 0.0003" in values["next"]
    alone = diffsteer("doctor", out / "model")
    assert alone.out.startswith("weights ") and "(it was" not in alone.out and alone.last == "next: diffsteer train DATA --out runs/again"


def test_without_its_data_a_run_is_still_looked_at(diffsteer: Diffsteer, planted: Planted) -> None:
    ended = diffsteer("doctor", planted(data="photos-that-are-gone"))
    assert ended.code == 0 and "left out   range, drift, copies" in ended.out and "nothing wrong found." in ended.out


def test_data_that_has_changed_is_not_compared(diffsteer: Diffsteer, planted: Planted) -> None:
    values = diffsteer("doctor", planted(resolved={"data_fingerprint": "other"}), "--json").json()
    assert "is not what it was in training" in values["left_out"][0] and values["next"].startswith("diffsteer sample ")


def test_what_is_no_run_is_the_users_mistake(diffsteer: Diffsteer, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert "neither settings.yaml nor model_index.json" in diffsteer("doctor", "photos").mistake()
    assert "is no folder" in diffsteer("doctor", "nowhere").mistake()
    (tmp_path / "photos" / "settings.yaml").write_text("a: 1")
    assert "is not of a diffsteer run" in diffsteer("doctor", "photos").mistake()


def test_no_recipe_is_too_short_or_clipped_by_its_own_settings() -> None:
    for name in recipe_names():
        settings = recipe_settings(name)
        steps = settings.steps or 1407
        assert symptoms.few_steps(falling(steps, 0.35), settings.decay == "none") is None, name
