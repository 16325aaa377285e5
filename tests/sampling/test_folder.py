"""Model folders: what lies in them, who can open them, and that all draw the same pictures."""

from __future__ import annotations

import ast
import builtins
import dis
import json
import os
import pickle
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors import safe_open

from diffsteer.cli import run
from diffsteer.diffusion.denoiser import ModelSpec
from diffsteer.errors import Mistake
from diffsteer.sampling.draw import How, Job, draw
from diffsteer.sampling.folder import load_model, pipeline_source, save_model

SmallModel = Callable[..., Path]
NAMES = ("ankle-boot", "3", *"cdefghij")
STEPS, SEEDS = 4, (5, 6, 7)

STOCK: dict[str, dict[str, Any]] = {
    "eps": {"process": "cosine", "prediction": "eps", "conditioning": "none"},
    "v": {"process": "cosine", "prediction": "v", "conditioning": "none"},
    "x0": {"process": "cosine", "prediction": "x0", "conditioning": "none"},
    "linear": {"process": "linear", "prediction": "eps", "conditioning": "none", "data": "digits-color"},
}
OWN: dict[str, dict[str, Any]] = {
    "add": {},
    "concat": {"conditioning": "concat", "names": NAMES, "process": "cosine"},
    "onehot": {"conditioning": "onehot", "data": "digits-color"},
    "no null class": {"label_dropout": 0.0, "conditioning": "concat"},
    "flow": {"conditioning": "none"},
    "edm": {"process": "edm"},
    "basic": {"network": "basic", "noise": "uniform", "pixel_range": "unit", "feed_time": False, "solver": "mix"},
    "conditional-unet": {"network": "conditional-unet", "process": "linear", "prediction": "eps"},
    "padded": {"process": "cosine", "prediction": "eps", "conditioning": "none", "size": (10, 13), "channels": "32,32,32"},
    "patches": {"patch_size": 2, "data": "digits-color"},
    "padded patches": {"patch_size": 2, "conditioning": "none", "size": (9, 15)},
    "ancestral": {"process": "cosine", "solver": "ddpm"},
    "scheduler": {"process": "cosine", "solver": "DPMSolverMultistepScheduler"},
}
EVERY = {**STOCK, **OWN}
CODED = ("concat", "onehot", "no null class", "basic", "conditional-unet", "patches", "padded patches")  # own networks


@pytest.fixture(scope="module")
def models(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: small_model(**settings) for name, settings in EVERY.items()}
    basic = load_model(str(made["basic"]))  # as it is made, it answers black to everything
    with torch.no_grad():
        for parameter in basic.network.parameters():
            parameter.mul_(3)
    made["basic"] = tmp_path_factory.mktemp("model") / "basic"
    save_model(made["basic"], basic.network, basic.spec)
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


# ---- what lies in a folder -------------------------------------------------------------------------------------------

EVERYWHERE = {"diffsteer.json", "model_index.json", "scheduler/scheduler_config.json", "unet/config.json"}
EVERYWHERE |= {"unet/diffusion_pytorch_model.safetensors"}


@pytest.mark.parametrize("name", EVERY)
def test_a_folder_holds_what_it_needs_and_nothing_else(models: dict[str, Path], name: str) -> None:
    code = set() if name in STOCK else {"pipeline.py"}
    code |= {"unet/network.py"} if name in CODED else set()
    assert set(files(models[name])) == EVERYWHERE | code
    index = read(models[name] / "model_index.json")
    assert index["_class_name"] == ("DDPMPipeline" if name in STOCK else ["pipeline", "DiffsteerPipeline"])
    assert index["unet"][0] == ("network" if "unet/network.py" in code else "diffusers")


@pytest.mark.parametrize("name", EVERY)
def test_a_folder_says_how_to_draw(models: dict[str, Path], name: str) -> None:
    values = read(models[name] / "diffsteer.json")
    spec = load_model(str(models[name])).spec
    assert ModelSpec.from_dict(values) == spec
    labelled = name not in STOCK and name not in ("flow", "basic", "padded", "padded patches")
    assert {"solver", "steps", "guidance_scale", "label_names", "data_variance"} <= set(values)
    assert len(values["label_names"]) == (10 if labelled else 0) and values["steps"] == STEPS
    assert 0.1 < values["data_variance"] < 1.0, "of the digits, not the default"


@pytest.mark.parametrize("name", EVERY)
def test_weights_carry_no_other_key_than_the_format(models: dict[str, Path], name: str) -> None:
    with safe_open(models[name] / "unet" / "diffusion_pytorch_model.safetensors", "pt") as weights:
        assert weights.metadata() == {"format": "pt"}


def test_saving_gives_the_same_bytes_again(models: dict[str, Path], tmp_path: Path) -> None:
    for name, folder in models.items():
        model = load_model(str(folder))
        for again in (tmp_path / name, tmp_path / name):  # the second replaces the first
            save_model(again, model.network, model.spec)
        assert files(tmp_path / name) == files(folder), name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(models), "nothing is left beside"


def test_a_folder_appears_whole_or_not_at_all(models: dict[str, Path], tmp_path: Path) -> None:
    model = load_model(str(models["add"]))
    save_model(tmp_path / "model", model.network, model.spec)
    before = files(tmp_path / "model")
    unwritable = replace(model.spec, label_names=("\udc80", *model.spec.label_names[1:]))  # no UTF-8 has it
    with pytest.raises(UnicodeEncodeError):
        save_model(tmp_path / "model", model.network, unwritable)
    with pytest.raises(UnicodeEncodeError):
        save_model(tmp_path / "other", model.network, unwritable)
    assert files(tmp_path / "model") == before and not (tmp_path / "other").exists()
    save_model(tmp_path / "other", model.network, model.spec)
    assert files(tmp_path / "other") == before


# ---- pipeline.py -----------------------------------------------------------------------------------------------------


def test_the_code_in_folders_is_the_same_for_all(models: dict[str, Path]) -> None:
    assert {(models[name] / "pipeline.py").read_text() for name in OWN} == {pipeline_source()}
    assert len({path.read_text() for folder in models.values() for path in folder.glob("unet/network.py")}) == 1


@pytest.mark.parametrize("file", ["pipeline.py", "unet/network.py"])
def test_the_code_in_folders_needs_torch_and_diffusers_only(models: dict[str, Path], file: str) -> None:
    tree = ast.parse((models["concat"] / file).read_text())
    modules = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}
    assert {module.split(".")[0] for module in modules} <= {"torch", "diffusers", *sys.stdlib_module_names}
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)), "relative imports get mixed up"


def test_every_name_that_the_pipeline_uses_is_defined_once() -> None:
    code = compile(pipeline_source(), "pipeline.py", "exec")
    module = types.ModuleType("joined_pipeline")
    sys.modules[module.__name__] = module  # dataclasses look themselves up
    try:
        exec(code, module.__dict__)
    finally:
        del sys.modules[module.__name__]
    missing = {name for name in global_names(code) if name not in module.__dict__ and not hasattr(builtins, name)}
    assert missing == set()
    defined = [node.name for node in ast.parse(pipeline_source()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(defined) == len(set(defined))


def global_names(code: types.CodeType) -> Iterator[str]:
    """Every global name that a piece of code or one inside it asks for."""
    yield from (str(step.argval) for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from global_names(inner)


# ---- opened by others ------------------------------------------------------------------------------------------------

# Runs where diffsteer cannot be imported and every warning is an error. Told the folders on stdin; leaves arrays and words.
ELSEWHERE = """
import json, sys, warnings

class NoDiffsteer:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "diffsteer":
            raise ImportError("this computer has no diffsteer")

sys.meta_path.insert(0, NoDiffsteer())
warnings.simplefilter("error")
# Of diffusers' own scheduler with a numpy that is newer than it:
warnings.filterwarnings("ignore", message="__array__ implementation doesn't accept a copy keyword")

import numpy as np
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DiffusionPipeline
from diffusers.utils import logging

logging.disable_progress_bar()
told = json.load(sys.stdin)
arrays, words = {}, {}

def opened(kind, folder, **more):
    pipe = kind.from_pretrained(folder, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe

def generators():
    return [torch.Generator().manual_seed(seed) for seed in told["seeds"]]

for name, folder in told["stock"].items():
    for kind in (DDPMPipeline, DDIMPipeline, DiffusionPipeline):
        pipe = opened(kind, folder)
        generator = torch.Generator().manual_seed(0)
        found = pipe(batch_size=2, generator=generator, num_inference_steps=3, output_type="np").images
        arrays[f"{name}/{kind.__name__}"] = found
        words[f"{name}/{kind.__name__}"] = type(pipe).__name__

own = lambda folder, **more: opened(DiffusionPipeline, folder, trust_remote_code=True, **more)
first = {name: own(folder) for name, folder in told["own"].items()}  # all open at once
for name, folder in told["own"].items():
    labels = told["labels"][name]
    asked = {} if labels is None else {"labels": labels}
    draw = lambda pipe, **more: pipe(**{"generator": generators(), **asked, **more}).images
    arrays[f"{name}/np"] = draw(first[name], output_type="np")
    arrays[f"{name}/pt"] = draw(first[name], output_type="pt").numpy()
    arrays[f"{name}/pil"] = np.stack([np.asarray(image) for image in draw(first[name])])
    arrays[f"{name}/custom"] = draw(own(folder, custom_pipeline=folder), output_type="np")
    arrays[f"{name}/ddpm"] = draw(first[name], output_type="np", solver="ddpm", num_inference_steps=3)
    arrays[f"{name}/bf16"] = draw(own(folder, dtype=torch.bfloat16), output_type="np")
    first[name].save_pretrained(told["saved"] + "/" + name)
    arrays[f"{name}/saved"] = draw(own(told["saved"] + "/" + name), output_type="np")
    words[f"{name}/modules"] = sorted({type(first[name]).__module__, type(first[name].unet).__module__})

add, flow = first["add"], first["flow"]
arrays["add/guided"] = add(labels=told["labels"]["add"], generator=generators(), guidance_scale=3.0, output_type="np").images
arrays["add/names"] = add(labels=[str(label) for label in told["labels"]["add"]], generator=generators(), output_type="np").images
arrays["add/tensor"] = add(labels=torch.tensor([3, 5, 0]), generator=generators(), output_type="np").images
arrays["add/one"] = add(labels="5", generator=generators()[1:2], output_type="np", return_dict=False)[0]
arrays["flow/free"] = flow(batch_size=2, output_type="np").images
arrays["flow/freely"] = flow(batch_size=2, output_type="np").images
for name in ("seeded", "seeded again"):
    torch.manual_seed(7)
    arrays[f"flow/{name}"] = flow(batch_size=2, output_type="np").images

def refusal(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return "no error"

words["no labels"] = refusal(lambda: add())
words["unknown"] = refusal(lambda: add(labels=["cat"]))
words["beyond"] = refusal(lambda: add(labels=[10]))
words["labels for none"] = refusal(lambda: flow(labels=[1]))
words["generators"] = refusal(lambda: add(labels=[1, 2], generator=generators()))
words["no null class"] = refusal(lambda: first["no null class"](labels=[1], guidance_scale=2.0))
words["solver"] = refusal(lambda: add(labels=[1], solver="eulr"))
words["output"] = refusal(lambda: add(labels=[1], output_type="latent"))
words["push"] = refusal(lambda: add.save_pretrained(told["saved"] + "/pushed", push_to_hub=True))
words["diffsteer"] = "diffsteer" in sys.modules
np.savez(told["arrays"], **arrays)
json.dump(words, sys.stdout)
"""


@dataclass(frozen=True)
class Elsewhere:
    """What a computer without diffsteer made of the folders."""

    arrays: dict[str, np.ndarray]
    words: dict[str, Any]
    stderr: str
    saved: Path


def labels_for(name: str) -> list[int | str] | None:
    if name in ("flow", "basic", "padded", "padded patches"):
        return None
    return ["3", "ankle-boot", 3] if name == "concat" else [3, 5, 0]


@pytest.fixture(scope="module")
def elsewhere(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    place = tmp_path_factory.mktemp("elsewhere")
    told = {
        "stock": {name: str(models[name]) for name in STOCK},
        "own": {name: str(models[name]) for name in OWN},
        "labels": {name: labels_for(name) for name in OWN},
        "seeds": SEEDS,
        "saved": str(place / "saved"),
        "arrays": str(place / "arrays.npz"),
    }
    environment = {**os.environ, "HF_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ELSEWHERE]
    ended = subprocess.run(command, input=json.dumps(told), cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    with np.load(place / "arrays.npz") as arrays:
        return Elsewhere(dict(arrays), json.loads(ended.stdout), ended.stderr, place / "saved")


def ours(folder: Path, name: str, shift: int = 0, **how: Any) -> np.ndarray:
    """What `diffsteer sample` draws for the same labels (or those `shift` further on) and seeds: uint8 [N, H, W, C]."""
    model = load_model(str(folder))
    names = model.spec.label_names
    ids = [names.index(label) if label in names else int(label) for label in labels_for(name) or ()]
    labels = [(label + shift) % len(names) for label in ids] or [None] * 3
    drawn = draw(model, [Job(label, seed) for label, seed in zip(labels, SEEDS, strict=True)], How(**how))
    return drawn.pictures.permute(0, 2, 3, 1).numpy()


def to_levels(images: np.ndarray) -> np.ndarray:
    """[0, 1] -> uint8, as pictures are rounded everywhere."""
    return np.floor(images.astype(np.float64) * 255 + 0.5).astype(np.uint8)


def test_nothing_is_said_or_imported_there(elsewhere: Elsewhere) -> None:
    assert elsewhere.stderr == ""
    assert elsewhere.words["diffsteer"] is False


@pytest.mark.parametrize("pipeline", ["DDPMPipeline", "DDIMPipeline", "DiffusionPipeline"])
@pytest.mark.parametrize("name", STOCK)
def test_stock_pipelines_open_unconditional_models(elsewhere: Elsewhere, name: str, pipeline: str) -> None:
    found = elsewhere.arrays[f"{name}/{pipeline}"]
    assert found.shape == (2, 8, 8, 3 if name == "linear" else 1) and np.isfinite(found).all() and found.std() > 0.05
    assert elsewhere.words[f"{name}/{pipeline}"] == pipeline.replace("Diffusion", "DDPM")


@pytest.mark.parametrize("name", ["eps", "v", "x0"])
def test_the_stock_pipeline_reads_the_network_as_we_do(models: dict[str, Path], name: str) -> None:
    """Their scheduler's x0 from the network's output is our denoiser's."""
    pipe, model = diffusers.DDIMPipeline.from_pretrained(models[name]), load_model(str(models[name]))
    x_t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(1000)
    for t in (0, 400, 999):
        with torch.no_grad():
            theirs = scheduler.step(pipe.unet(x_t, t).sample, t, x_t).pred_original_sample
            found = model(x_t, float(t))
        torch.testing.assert_close(found, theirs, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", OWN)
def test_our_pipeline_draws_what_diffsteer_draws(elsewhere: Elsewhere, models: dict[str, Path], name: str) -> None:
    expected = ours(models[name], name)
    assert expected.std() > 5 and len({picture.tobytes() for picture in expected}) == 3
    assert labels_for(name) is None or (expected != ours(models[name], name, shift=1)).any((1, 2, 3)).all(), "each follows its label"
    found = elsewhere.arrays
    assert (to_levels(found[f"{name}/np"]) == expected).all()
    assert (to_levels(found[f"{name}/pt"]).transpose(0, 2, 3, 1) == expected).all()
    assert (found[f"{name}/pil"].reshape(expected.shape) == expected).all()
    assert (to_levels(found[f"{name}/custom"]) == expected).all()


@pytest.mark.parametrize("name", OWN)
def test_another_solver_draws_what_it_draws_in_diffsteer(elsewhere: Elsewhere, models: dict[str, Path], name: str) -> None:
    assert (to_levels(elsewhere.arrays[f"{name}/ddpm"]) == ours(models[name], name, solver="ddpm", steps=3)).all()


@pytest.mark.parametrize("name", OWN)
def test_a_copy_that_diffusers_saved_opens_again(elsewhere: Elsewhere, models: dict[str, Path], name: str) -> None:
    assert (elsewhere.arrays[f"{name}/saved"] == elsewhere.arrays[f"{name}/np"]).all()
    assert (ours(elsewhere.saved / name, name) == ours(models[name], name)).all(), "in diffsteer, too"
    here, there = (read(folder / "model_index.json") for folder in (models[name], elsewhere.saved / name))
    assert (there["_class_name"], there["unet"]) == (here["_class_name"], here["unet"]), "nothing of the process that saved it"
    code = {file: content for file, content in files(models[name]).items() if file.endswith(".py")}
    assert {file: content for file, content in files(elsewhere.saved / name).items() if file.endswith(".py")} == code


@pytest.mark.parametrize("name", OWN)
def test_half_precision_draws_nearly_the_same(elsewhere: Elsewhere, name: str) -> None:
    difference = abs(elsewhere.arrays[f"{name}/bf16"] - elsewhere.arrays[f"{name}/np"])
    assert np.isfinite(difference).all() and difference.mean() < 0.1


def test_models_that_are_open_together_draw_their_own(elsewhere: Elsewhere) -> None:
    """All folders were opened before the first was used; their code has one name, so it must be one."""
    assert elsewhere.words["concat/modules"] == ["diffusers_modules.local.network", "diffusers_modules.local.pipeline"]
    pictures = [elsewhere.arrays[f"{name}/np"] for name in ("add", "concat", "no null class", "conditional-unet")]
    assert all((one != other).any() for k, one in enumerate(pictures) for other in pictures[:k] if one.shape == other.shape)


def test_labels_are_numbers_names_or_a_tensor(elsewhere: Elsewhere, models: dict[str, Path]) -> None:
    arrays = elsewhere.arrays
    assert (arrays["add/names"] == arrays["add/np"]).all() and (arrays["add/tensor"] == arrays["add/np"]).all()
    assert abs(arrays["add/one"][0] - arrays["add/np"][1]).max() < 1 / 255, "a picture alone"
    assert (to_levels(arrays["add/guided"]) == ours(models["add"], "add", guidance_scale=3.0)).all()
    assert (arrays["add/guided"] != arrays["add/np"]).any()


def test_without_generators_pictures_are_new_each_time(elsewhere: Elsewhere) -> None:
    free, freely = elsewhere.arrays["flow/free"], elsewhere.arrays["flow/freely"]
    assert free.shape == (2, 8, 8, 1) and (free != freely).any() and (free[0] != free[1]).any()
    assert (elsewhere.arrays["flow/seeded"] == elsewhere.arrays["flow/seeded again"]).all(), "torch's own seed holds here too"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("no labels", "say what to draw: labels=[...], of 0, 1, 2"),
        ("unknown", "there is no label 'cat'; there are 0, 1, 2"),
        ("beyond", "there is no label 10"),
        ("labels for none", "trained without labels"),
        ("generators", "3 generators were given for 2 pictures"),
        ("no null class", "label dropout"),
        ("solver", "there is no solver 'eulr'; there are mix, ddpm"),
        ("output", "output_type is pil, np or pt"),
        ("push", "save it, then upload the folder"),
    ],
)
def test_the_pipelines_mistakes_are_sentences(elsewhere: Elsewhere, call: str, says: str) -> None:
    assert says in elsewhere.words[call]


def test_without_trust_nothing_of_ours_is_run(models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        diffusers.DiffusionPipeline.from_pretrained(models["add"])


# ---- opened by us ----------------------------------------------------------------------------------------------------

TINY_UNET: dict[str, Any] = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "block_out_channels": (32, 32)}
TINY_UNET |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}


def foreign(place: Path, scheduler: Any = None, safe: bool = True, **unet: Any) -> Path:
    """A pipeline folder that somebody else made with diffusers alone."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**{**TINY_UNET, **unet})
    pipe = diffusers.DDPMPipeline(network, scheduler or diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"))
    pipe.save_pretrained(place, safe_serialization=safe)
    return place


def test_a_foreign_pipeline_opens(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "theirs", sample_size=(8, 12), in_channels=3, out_channels=3)
    model = load_model(str(folder))
    assert (model.spec.shape, model.spec.prediction, model.spec.process.name) == ((3, 8, 12), "eps", "cosine")
    assert not model.spec.labelled and model.notes == ()
    assert run(["sample", str(folder), "--count", "2", "--steps", "2", "--out", str(tmp_path / "x.npz")]) == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["arr_0"].shape == (2, 8, 12, 3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", [{"beta_schedule": "linear"}, {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.01}])
def test_a_foreign_network_is_read_by_its_scheduler(tmp_path: Path, prediction: str, betas: dict[str, Any]) -> None:
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction, clip_sample=False, **betas)
    model = load_model(str(foreign(tmp_path / "theirs", scheduler)))
    x_t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    for t in (0, 300, 999):
        with torch.no_grad():
            theirs = scheduler.step(model.network(x_t, t).sample, t, x_t, generator=torch.Generator()).pred_original_sample
            torch.testing.assert_close(model(x_t, float(t)), theirs, rtol=1e-3, atol=1e-4)


def test_a_foreign_flow_model_opens(tmp_path: Path) -> None:
    model = load_model(str(foreign(tmp_path / "theirs", diffusers.FlowMatchEulerDiscreteScheduler())))
    x_t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        velocity = model.network(x_t, 250.0).sample
        torch.testing.assert_close(model(x_t, 250.0), x_t - 0.25 * velocity)


def test_a_foreign_class_conditional_model_opens(tmp_path: Path) -> None:
    model = load_model(str(foreign(tmp_path / "theirs", num_class_embeds=4)))
    assert model.spec.label_names == ("0", "1", "2", "3") and not model.spec.null_class


def test_pipelines_of_the_oldest_layout_open(tmp_path: Path) -> None:
    """As google/ddpm-celebahq-256 lies on the Hub: the parts' files side by side."""
    folder = foreign(tmp_path / "theirs")
    expected = draw(load_model(str(folder)), [Job(None, 1)], How(steps=2)).pictures
    for part in ("unet", "scheduler"):
        for path in (folder / part).iterdir():
            path.rename(folder / path.name)
        (folder / part).rmdir()
    assert torch.equal(draw(load_model(str(folder)), [Job(None, 1)], How(steps=2)).pictures, expected)


def test_pickled_weights_are_read_as_numbers_and_the_user_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safe, pickled = foreign(tmp_path / "safe"), foreign(tmp_path / "pickled", safe=False)
    assert [path.name for path in sorted((pickled / "unet").iterdir())] == ["config.json", "diffusion_pytorch_model.bin"]
    model = load_model(str(pickled))
    assert len(model.notes) == 1 and ".bin" in model.notes[0] and str(pickled / "unet") in model.notes[0]
    drawn = [draw(load_model(str(folder)), [Job(None, 1)], How(steps=2)).pictures for folder in (safe, pickled)]
    assert torch.equal(*drawn)
    assert run(["sample", str(pickled), "--count", "1", "--steps", "1", "--out", str(tmp_path / "x.png")]) == 0
    assert model.notes[0] in capsys.readouterr().out
    assert run(["sample", str(pickled), "--count", "1", "--steps", "1", "--out", str(tmp_path / "y.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == list(model.notes)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "theirs", safe=False)
    torch.save({"x": Evil(tmp_path / "ran")}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(Mistake, match="cannot be read"):
        load_model(str(folder))
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(Mistake, match="cannot be read"):
        load_model(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["add", "concat"])
def test_no_code_in_a_folder_is_run(models: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models[name], folder)
    evil = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    for file in ("pipeline.py", "unet/network.py", "__init__.py", "diffsteer.py", "unet/unet.py"):
        (folder / file).write_text(evil)
    config = read(folder / "unet" / "config.json")
    (folder / "unet" / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "network.Net"}}))
    assert (ours(folder, name) == ours(models[name], name)).all()
    assert run(["sample", str(folder), "--count", "1", "--steps", "1", "--out", str(tmp_path / "x.png")]) == 0
    assert not (tmp_path / "ran").exists()


def edm(**options: Any) -> Any:
    return diffusers.EDMEulerScheduler(prediction_type="v_prediction", **options)


@pytest.mark.parametrize(
    ("scheduler", "unet", "says"),
    [
        (lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), {}, "shift 3.0"),
        (lambda: diffusers.DDPMScheduler(rescale_betas_zero_snr=True), {}, "rescale_betas_zero_snr"),
        (lambda: diffusers.DDPMScheduler(beta_schedule="sigmoid"), {}, "sigmoid"),
        (edm, {}, "told the time in another way"),
        (diffusers.CMStochasticIterativeScheduler, {}, "no betas"),
        (None, {"in_channels": 4, "out_channels": 4}, "takes 4 channels and answers with 4"),
        (None, {"in_channels": 3, "out_channels": 6}, "takes 3 channels and answers with 6"),
        (None, {"sample_size": None}, "no sample_size"),
        (None, {"class_embed_type": "timestep"}, "class as timestep"),
    ],
)
def test_foreign_models_that_would_be_misread_are_refused(
    tmp_path: Path, scheduler: Callable[[], Any] | None, unet: dict[str, Any], says: str
) -> None:
    folder = foreign(tmp_path / "theirs", scheduler() if scheduler else None, **unet)
    with pytest.raises(Mistake, match=says) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value) and str(caught.value).endswith(".")


def test_broken_folders_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    def broken(name: str, change: Callable[[Path], object]) -> Path:
        shutil.copytree(models["concat"], tmp_path / name)
        change(tmp_path / name)
        return tmp_path / name

    weights = "unet/diffusion_pytorch_model.safetensors"
    cases = {
        "index": (lambda at: (at / "model_index.json").write_text("{"), "cannot be read"),
        "list": (lambda at: (at / "model_index.json").write_text("[]"), "should hold settings"),
        "weights": (lambda at: (at / weights).write_bytes(b"torn"), "weights in"),
        "none": (lambda at: shutil.rmtree(at / "unet"), "cannot be read"),
        "config": (lambda at: (at / "unet" / "config.json").write_text("nonsense"), "cannot be read"),
        "spec": (lambda at: (at / "diffsteer.json").write_text("{}"), "not written by this version"),
        "text": (lambda at: at.joinpath("model_index.json").write_text('{"unet": ["x", "UNet2DConditionModel"]}'), "UNet2DConditionModel"),
        "vae": (lambda at: (at / "model_index.json").write_text('{"vae": ["diffusers", "AutoencoderKL"]}'), "without a unet"),
    }
    for name, (change, says) in cases.items():
        with pytest.raises(Mistake, match=says):
            load_model(str(broken(name, change)))


# ---- sizes that are no multiple --------------------------------------------------------------------------------------


def test_odd_sizes_are_trained_and_drawn_exactly(tmp_path: Path) -> None:
    words = ["train", "digits", "--size", "9x14", "--channels", "32,32,32", "--layers", "1", "--batch-size", "8", "--figures", "none"]
    assert run([*words, "--steps", "2", "--preview-every", "9", "--out", str(tmp_path / "run")]) == 0
    assert run(["sample", str(tmp_path / "run"), "--count", "3", "--steps", "2", "--out", str(tmp_path / "x.npz")]) == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["arr_0"].shape == (3, 9, 14, 1)
    assert read(tmp_path / "run" / "model" / "unet" / "config.json")["sample_size"] == [12, 16]


def test_a_padded_model_is_not_offered_to_stock_pipelines(models: dict[str, Path], elsewhere: Elsewhere) -> None:
    assert "pipeline.py" in files(models["padded"]) and "pipeline.py" not in files(models["eps"])
    assert elsewhere.arrays["padded/np"].shape == (3, 10, 13, 1)


def test_a_consistency_model_is_not_offered_to_stock_pipelines(models: dict[str, Path], tmp_path: Path) -> None:
    """In their thousand steps it would be asked for the mean, which it does not answer."""
    model = load_model(str(models["eps"]))
    save_model(tmp_path / "few", model.network, replace(model.spec, consistency=True, solver="ddpm", steps=2))
    assert read(tmp_path / "few" / "model_index.json")["_class_name"] == ["pipeline", "DiffsteerPipeline"]
    assert load_model(str(tmp_path / "few")).spec.consistency
