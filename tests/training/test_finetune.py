"""What a trained network becomes: what it knew it knows to the last digits, and only what is to be learnt is learnt."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from diffsteer.config import FinetuneSettings
from diffsteer.data.batch import Pictures
from diffsteer.data.images import load_pictures
from diffsteer.data.memory import MemoryPictures
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.networks import PatchUNet, size_multiple
from diffsteer.errors import Mistake
from diffsteer.recipebook import finetune_settings, train_settings
from diffsteer.training.build import build_model
from diffsteer.training.finetune import Adapted, adapted, settled
from diffsteer.training.loop import Training
from diffsteer.training.lora import merged, save_lora
from diffsteer.training.plan import Plan

SMALL = {"channels": "32,32"}
# One base of every kind.
BASES: dict[str, dict[str, Any]] = {
    "unet": {**SMALL, "conditioning": "none", "process": "cosine"},
    "by-label": SMALL,
    "patches": {**SMALL, "patch_size": 2},
    "concat": {**SMALL, "conditioning": "concat"},
    "onehot": {**SMALL, "conditioning": "onehot"},
    "onehot-without-null": {**SMALL, "conditioning": "onehot", "label_dropout": 0},
    "conditional-unet": {"network": "conditional-unet"},
    "basic": {"network": "basic", "pixel_range": "unit", "noise": "uniform", "conditioning": "none"},
}
LABELLED = [name for name in BASES if name not in ("unet", "basic")]


@cache
def data(names: tuple[str, ...] | None = None, channels: int = 1, size: tuple[int, int] = (8, 8)) -> Pictures:
    """Digits, their classes called by other names; colour where wanted."""
    loaded = load_pictures("digits-color" if channels == 3 else "digits", size=size)
    assert isinstance(loaded, MemoryPictures) and loaded.labels is not None
    if names is None:
        return loaded
    return replace(loaded, labels=loaded.labels % len(names), label_names=names) if names else replace(loaded, labels=None, label_names=())


@cache
def base(name: str, labels: bool = True) -> Denoiser:
    """An untrained model, its last layer and its biases woken up so that it answers something."""
    network, spec = build_model(train_settings(None, {"data": "digits", **BASES[name]}), data() if labels else data(()))
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.05)
    return Denoiser(network.eval(), spec, size_multiple(network))


def tuned(of: Denoiser, new: Pictures, **given: Any) -> Adapted:
    settings = finetune_settings(None, {"model": "the base", "data": "digits", **given})
    network = copy.deepcopy(of.network)
    return adapted(network, of.spec, new, settled(settings, network, of.spec, "hash"))


def answers(network: nn.Module, spec: ModelSpec, label: str | None, x: Tensor) -> Tensor:
    """What a network answers at some noise level, told this label (None: the null class, or nothing)."""
    number = spec.null_id if label is None else spec.label_names.index(label)
    cond = torch.full((len(x),), number) if spec.labelled else None
    with torch.no_grad():
        return Denoiser(network.eval(), spec, size_multiple(network)).predict(x, torch.full((len(x),), 400.0), cond)


def pictures(channels: int = 1, size: int = 8) -> Tensor:
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(7))


def training(made: Adapted, on: Pictures, **given: Any) -> Training:
    settings = finetune_settings(None, {"model": "the base", "data": "digits", "batch_size": 8, **given})
    settled_here = {"base_weights": "hash", "label_dropout": 0.1, "process": made.spec.process.name, "lr": settings.lr or 5e-4}
    settings = settings.model_copy(update=settled_here)
    plan = Plan(on.count, settings.batch_size, settings.accumulate, "fill", 1000, settings.lr, 0, "none")
    AcceleratorState._reset_state(reset_partial_state=False)
    on = on.relabelled(made.spec.label_names) if made.spec.labelled else on
    return Training(made.network, made.spec, settings, on, plan, Accelerator(cpu=True))


def steps(of: Training, count: int) -> list[float]:
    return [(stepped.record[0] / stepped.record[1]).item() for stepped in islice(of.run(), count)]


def learnt(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


# ---- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
def test_nothing_changes_where_the_data_is_of_the_same_kind(name: str) -> None:
    old = base(name)
    made = tuned(old, data())
    assert made.spec == old.spec and made.before == old.spec
    label = "3" if old.spec.labelled else None
    torch.testing.assert_close(
        answers(made.network, made.spec, label, pictures()), answers(old.network, old.spec, label, pictures()), rtol=0, atol=0
    )
    assert learnt(made.network) == {parameter for parameter, _ in made.network.named_parameters()}


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("how", ["grow", "swap"])
def test_a_known_label_is_drawn_as_before_and_new_ones_begin_apart(name: str, how: str) -> None:
    old, x = base(name), pictures()
    made = tuned(old, data(("7", "cat", "3", "dog")), classes=how)
    expected = [str(i) for i in range(10)] + ["cat", "dog"] if how == "grow" else ["7", "cat", "3", "dog"]
    assert list(made.spec.label_names) == expected and made.spec.null_class == old.spec.null_class
    for label in ("3", "7"):
        torch.testing.assert_close(
            answers(made.network, made.spec, label, x), answers(old.network, old.spec, label, x), rtol=1e-5, atol=1e-5
        )
    cat, dog = (answers(made.network, made.spec, label, x) for label in ("cat", "dog"))
    assert (cat - dog).abs().mean() > 1e-3, "from one row for all, a short training would not part them"
    if old.spec.null_class:
        nothing = answers(made.network, made.spec, None, x)
        torch.testing.assert_close(nothing, answers(old.network, old.spec, None, x), rtol=1e-5, atol=1e-5)
        assert min((cat - nothing).abs().mean(), (dog - nothing).abs().mean()) > 1e-3
    again = tuned(old, data(("7", "cat", "3", "dog")), classes=how)
    assert torch.equal(answers(again.network, again.spec, "cat", x), cat), "a run that is resumed begins with the same"
    assert not torch.allclose(answers(made.network, made.spec, "3", x), answers(made.network, made.spec, "7", x), atol=1e-4)


def test_classes_are_kept_where_all_are_known_and_swapped_elsewhere() -> None:
    old = base("by-label")
    assert tuned(old, data(("7", "3"))).spec.label_names == old.spec.label_names
    assert tuned(old, data(("7", "cat"))).spec.label_names == ("7", "cat")
    with pytest.raises(Mistake, match=r"does not know cat; it knows 0, 1, .* --classes grow"):
        tuned(old, data(("7", "cat")), classes="keep")
    with pytest.raises(Mistake, match="draws by label and digits has no labels"):
        tuned(old, data(()))


def test_labels_are_found_by_name_in_the_new_table() -> None:
    named = data(("7", "cat", "3"))
    numbered = named.relabelled(("0", "3", "7", "cat"))
    before, after = (each.at(range(20)).labels for each in (named, numbered))
    assert before is not None and after is not None
    assert [named.label_names[i] for i in before.tolist()] == [numbered.label_names[i] for i in after.tolist()]
    assert numbered.fingerprint == named.fingerprint


@pytest.mark.parametrize("name", ["unet", "patches"])
def test_a_base_without_labels_can_be_given_some(name: str) -> None:
    old = base(name, labels=False)
    assert not old.spec.labelled and not tuned(old, data()).spec.labelled
    with pytest.raises(Mistake, match="has no labels to keep"):
        tuned(old, data(), classes="keep")
    made = tuned(old, data(("cat", "dog")), classes="swap", label_dropout=0.1)
    assert (made.spec.conditioning, made.spec.label_names, made.spec.null_class) == ("add", ("cat", "dog"), True)
    for label in ("dog", None):
        torch.testing.assert_close(answers(made.network, made.spec, label, pictures()), answers(old.network, old.spec, None, pictures()))


def test_a_null_class_is_made_where_labels_are_to_be_left_out() -> None:
    old = base("onehot-without-null")
    assert not tuned(old, data()).spec.null_class
    made = tuned(old, data(), label_dropout=0.2)
    assert made.spec.null_class
    torch.testing.assert_close(answers(made.network, made.spec, "3", pictures()), answers(old.network, old.spec, "3", pictures()))


@pytest.mark.parametrize("name", ["unet", "by-label", "patches", "concat", "onehot", "conditional-unet", "basic"])
def test_grey_is_answered_as_before_after_a_change_of_channels(name: str) -> None:
    old, grey = base(name), pictures()
    label = "3" if old.spec.labelled else None
    made = tuned(old, data(channels=3))
    expected = answers(old.network, old.spec, label, grey).expand(-1, 3, -1, -1)
    torch.testing.assert_close(answers(made.network, made.spec, label, grey.expand(-1, 3, -1, -1)), expected, rtol=1e-4, atol=1e-4)
    back = tuned(Denoiser(made.network, made.spec, size_multiple(made.network)), data())
    torch.testing.assert_close(answers(back.network, back.spec, label, grey), expected[:, :1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["by-label", "patches", "conditional-unet"])
def test_another_size_needs_no_other_weights(name: str) -> None:
    old = base(name)
    made = tuned(old, data(size=(12, 10)), size="12x10")
    assert (made.spec.height, made.spec.width) == (12, 10)
    multiple = size_multiple(made.network)
    assert tuple(made.network.config["sample_size"]) == (12, -(-10 // multiple) * multiple)
    torch.testing.assert_close(answers(made.network, made.spec, "3", pictures()), answers(old.network, old.spec, "3", pictures()))


def test_a_size_that_is_too_small_is_refused() -> None:
    network, spec = build_model(train_settings(None, {"data": "digits", "channels": "32,32,32,32,32"}), data(size=(16, 16)))
    with pytest.raises(Mistake, match=r"multiples of 16; 8x8 is too small.*--size 9"):
        tuned(Denoiser(network, spec, 16), data(), size="8")


def test_another_prediction_keeps_the_weights_and_says_how_the_first_preview_is_read() -> None:
    old = base("unet")
    made = tuned(old, data(), prediction="eps")
    assert (old.spec.prediction, made.spec.prediction, made.before.prediction) == ("v", "eps", "v")
    torch.testing.assert_close(answers(made.network, made.spec, None, pictures()), answers(old.network, old.spec, None, pictures()))
    assert any("has to learn eps" in note for note in made.notes)
    with pytest.raises(Mistake, match="predicts x0 in \\[0, 1\\] and can learn nothing else"):
        tuned(base("basic"), data(), prediction="v")
    with pytest.raises(Mistake, match="eps says nothing about x0 where flow starts"):
        tuned(base("by-label"), data(), prediction="eps")


def test_what_the_base_decides_is_filled_in_and_not_asked_for() -> None:
    old = base("basic")
    settings = settled(finetune_settings(None, {"model": "m", "data": "d"}), old.network, old.spec, "hash")
    assert (settings.network, settings.process, settings.noise, settings.pixel_range) == ("basic", "flow", "uniform", "unit")
    assert (settings.resolved_prediction, settings.label_dropout, settings.size) == ("x0", 0, (8, 8))
    assert (settings.solver, settings.sample_steps) == (old.spec.solver, old.spec.steps)
    assert "channels" not in settings.model_dump()
    lora = settled(finetune_settings(None, {"model": "m", "data": "d", "tune": "lora"}), old.network, old.spec, "hash")
    assert (settings.lr, lora.lr) == (5e-4, 1e-2)
    with pytest.raises(Mistake, match="process is the base's"):
        finetune_settings(None, {"model": "m", "data": "d", "process": "cosine"})
    assert isinstance(settings, FinetuneSettings) and FinetuneSettings(**settings.model_dump()) == settings


# ---- what is learnt --------------------------------------------------------------------------------------------------


def test_the_last_blocks_alone_are_learnt_and_the_frozen_ones_cost_nothing() -> None:
    old = base("patches")
    made = tuned(old, data(), tune="last-blocks")
    run = training(made, data(), tune="last-blocks")
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    steps(run, 3)
    chosen = learnt(made.network)
    assert {name.removeprefix("model.").split(".")[0] for name in chosen} == {"up_blocks", "conv_norm_out", "conv_out"}
    assert {name.split(".")[2] for name in chosen if "up_blocks" in name} == {"1"}
    moved = {name for name, value in made.network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == chosen
    assert all(parameter.grad is None for name, parameter in made.network.named_parameters() if name not in chosen)
    groups = run.tensors()
    assert set(groups["model"]) == set(groups["ema"]) == chosen
    assert {name.split(".", 1)[1] for name in groups["optimizer"]} == chosen


def test_a_changed_label_table_is_learnt_with_the_last_blocks() -> None:
    made = tuned(base("by-label"), data(("cat", "dog")), tune="last-blocks")
    assert "class_embedding.weight" in learnt(made.network) and "conv_in.weight" not in learnt(made.network)


def test_weights_are_frozen_by_the_beginnings_of_their_names() -> None:
    made = tuned(base("patches"), data(), freeze="conv_in,down_blocks.0,time_embedding")
    everything = {name for name, _ in made.network.named_parameters()}
    frozen = everything - learnt(made.network)
    assert frozen == {n for n in everything if n.startswith(("model.conv_in.", "model.down_blocks.0.", "model.time_embedding."))} and frozen
    with pytest.raises(Mistake, match=r"--freeze down_block: no weights begin so; there are conv_in, time_embedding"):
        tuned(base("patches"), data(), freeze="down_block")
    with pytest.raises(Mistake, match="leaves nothing to learn"):
        tuned(base("basic"), data(), freeze="down_layers,up_layers")


def test_resuming_frozen_and_low_rank_runs_is_exact() -> None:
    for how in ({"tune": "lora"}, {"freeze": "conv_in,down_blocks"}):
        old = base("by-label")
        straight = training(tuned(old, data(), **how), data(), **how)
        expected = steps(straight, 5)
        first = training(tuned(old, data(), **how), data(), **how)
        begun = steps(first, 2)
        second = training(tuned(old, data(), **how), data(), **how)
        second.load(first.tensors(), first.state())
        assert begun + steps(second, 3) == expected


@pytest.mark.parametrize("tune", ["all", "lora"])
def test_gradient_checkpointing_gives_the_same_gradients(tune: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        made = tuned(base("patches"), data(), gradient_checkpointing=checkpointing, tune=tune)
        run = training(made, data(), gradient_checkpointing=checkpointing)
        run.engine.train()
        assert any(getattr(part, "gradient_checkpointing", False) for part in made.network.modules()) is checkpointing
        run._gradients(run._shown(0, run._read(0)))
        gradients.append(torch.cat([p.grad.flatten() for p in made.network.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)
    with pytest.raises(Mistake, match="goes with a UNet2DModel, not with a BasicUNet"):
        tuned(base("basic"), data(), gradient_checkpointing=True)


def test_accumulation_equals_one_big_batch() -> None:
    """Losses over 50 steps to 1e-5."""
    told = []
    for batch, accumulate in ((16, 1), (8, 2)):
        more = {"tune": "last-blocks", "batch_size": batch, "accumulate": accumulate, "lr": 1e-3}
        told.append(steps(training(tuned(base("by-label"), data(), **more), data(), **more), 50))
    assert max(abs(a - b) for a, b in zip(*told, strict=True)) < 1e-5


# ---- LoRA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["by-label", "patches", "concat", "conditional-unet"])
def test_lora_starts_at_the_base_and_can_be_merged(name: str, tmp_path: Path) -> None:
    old, x = base(name), pictures()
    made = tuned(old, data(), tune="lora")
    torch.testing.assert_close(answers(made.network, made.spec, "3", x), answers(old.network, old.spec, "3", x), rtol=1e-5, atol=1e-5)
    assert all("lora_" in parameter for parameter in learnt(made.network))
    steps(training(made, data(), tune="lora", lr=1e-2), 3)
    after = answers(made.network, made.spec, "3", x)
    assert not torch.allclose(after, answers(old.network, old.spec, "3", x), atol=1e-3)
    plain = merged(made.network)
    assert plain.state_dict().keys() == old.network.state_dict().keys()
    torch.testing.assert_close(answers(plain, made.spec, "3", x), after, rtol=1e-4, atol=1e-4)


def test_lora_files_are_small_and_load_onto_the_base(tmp_path: Path) -> None:
    from peft import PeftModel

    network, spec = build_model(train_settings(None, {"data": "digits", "channels": "64,128"}), data())
    old, x = Denoiser(network, spec, 2), pictures()
    made = tuned(old, data(tuple("abcdefghij")), tune="lora")
    assert made.spec.label_names == tuple("abcdefghij"), "as many labels take over the rows of the old ones"
    steps(training(made, data(tuple("abcdefghij")), tune="lora", lr=1e-2), 3)
    save_lora(tmp_path / "lora", made.network, "runs/base")
    assert sorted(path.name for path in (tmp_path / "lora").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["base_model_name_or_path"] == "runs/base"
    size = sum(path.stat().st_size for path in (tmp_path / "lora").iterdir())
    assert size < 0.05 * sum(4 * parameter.numel() for parameter in network.parameters())
    loaded = PeftModel.from_pretrained(copy.deepcopy(network), str(tmp_path / "lora")).merge_and_unload()
    torch.testing.assert_close(answers(loaded, made.spec, "c", x), answers(made.network, made.spec, "c", x), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(answers(loaded, made.spec, "c", x), answers(network, spec, "2", x), atol=1e-3)


def test_lora_leaves_the_base_as_it_is_or_says_why_not() -> None:
    with pytest.raises(Mistake, match="its class_embedding would change"):
        tuned(base("by-label"), data(("cat", "dog")), tune="lora")
    with pytest.raises(Mistake, match="its conv_in, conv_out would change"):
        tuned(base("by-label"), data(channels=3), tune="lora")
    frozen = tuned(base("by-label"), data(), tune="lora", freeze="up_blocks")
    assert learnt(frozen.network) and not any("up_blocks" in name for name in learnt(frozen.network))
    assert learnt(tuned(base("basic"), data(), tune="lora").network)


def test_lora_without_peft_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(Mistake, match=r"needs the package peft: pip install"):
        tuned(base("by-label"), data(), tune="lora")


def test_the_patches_are_those_of_the_base() -> None:
    made = tuned(base("patches"), data(channels=3))
    assert isinstance(made.network, PatchUNet) and made.network.config["patch_size"] == 2
    assert made.network.model.config.in_channels == 12
