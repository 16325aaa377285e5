"""From a model to pictures: one function that walks a solver, and the diffusers pipeline that travels in model folders.

`diffsteer sample` and the pipeline call the same `trajectory`, so they draw the same pictures. The source of this module and of those it
needs is joined into each folder's one `pipeline.py`, which therefore needs torch and diffusers only.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from torch import Tensor

from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.process import Process
from diffsteer.diffusion.seeds import PictureNoise
from diffsteer.sampling.schedulers import diffusers_solver
from diffsteer.sampling.solvers import SOLVERS, Solver, Step, time_grid
from diffsteer.steering.mixing import DenoiserLike, Mixing, clipped, mixed, thresholded

# What diffusers calls those of our spacings that it has.
SCHEDULER_SPACINGS: dict[str | None, dict[str, Any]] = {
    None: {},
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "karras": {"use_karras_sigmas": True},
}
SCHEDULER_STEPS = 50


def choose(spec: ModelSpec, solver: str | None, steps: int | None, spacing: str | None) -> tuple[str, int, str | None]:
    """Solver, steps and spacing: the model's own where not given; a solver that is not the model's comes with its own of the others."""
    name = solver or spec.solver
    if name == spec.solver:
        return name, steps or spec.steps, spacing or spec.spacing
    return name, steps or (SOLVERS[name].default_steps if name in SOLVERS else SCHEDULER_STEPS), spacing


def prepare(process: Process, solver: str, steps: int, spacing: str | None) -> tuple[Solver, Tensor, bool]:
    """(solve, times, whether x0 is held in [-1, 1]) of a solver of ours, or a diffusers scheduler by its class name.

    ValueError, in a sentence, for a choice that does not exist or does not fit the process.
    """
    if solver in SOLVERS:
        return SOLVERS[solver].solve, time_grid(process, solver, steps, spacing), SOLVERS[solver].clip
    if not solver.endswith("Scheduler"):
        raise ValueError(f"there is no solver {solver!r}; there are {', '.join(SOLVERS)}, and diffusers' schedulers by their class names")
    if spacing not in SCHEDULER_SPACINGS:
        known = ", ".join(name for name in SCHEDULER_SPACINGS if name)
        raise ValueError(f"diffusers' schedulers know no spacing {spacing!r}; they know {known}")
    solve, times = diffusers_solver(solver, process, steps, overrides=SCHEDULER_SPACINGS[spacing])
    return solve, times, True


def trajectory(
    denoiser: Denoiser,
    noise: PictureNoise,
    labels: Tensor | None,
    *,
    solver: str,
    steps: int,
    spacing: str | None = None,
    mixing: Mixing | None = None,
    guide: Denoiser | None = None,
    steer: Callable[[DenoiserLike, Tensor, bool], Any] | None = None,
    recurrence: int = 1,
    device: torch.device | str = "cpu",
) -> Iterator[Step]:
    """The steps from noise to pictures [B, C, H, W] in [-1, 1], float32; labels are ids [B], or None for a model without.

    guide: the worse model of autoguidance. steer: (denoiser, times, whether to hold x0 in [-1, 1]) -> a denoiser with a method `finish` for
    the last picture (`steering.gradient.SteeredDenoiser`).
    """
    spec, mixing = denoiser.spec, mixing or Mixing()
    solve, times, clip = prepare(spec.process, solver, steps, spacing)
    clip = clip and mixing.dynamic_threshold is None
    walked = mixed(denoiser, mixing, spec.process, spec.null_id, (guide, guide.spec.process) if guide else None)
    steered = steer(walked, times, clip) if steer else None
    walked = steered or (clipped(walked) if clip else walked)
    if mixing.dynamic_threshold is not None:
        walked = thresholded(walked, mixing.dynamic_threshold)
    x = noise(device) * spec.process.start_scale(times[0]).item()
    for state in solve(walked, x, times, spec.process, cond=labels, noise=noise, recurrence=recurrence):
        if steered and state.step == len(times):
            state = state._replace(x0=steered.finish(state.x0))
        yield state


class DiffsteerPipeline(DiffusionPipeline):
    """Draws pictures of the labels asked for. `spec` is `ModelSpec.as_dict()`."""

    model_cpu_offload_seq = "unet"

    def __init__(self, unet: Any, scheduler: Any, spec: dict[str, Any] | None = None, multiple: int = 1) -> None:
        # diffusers takes an argument without a default for a part to load, so `spec` has one.
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(spec=spec, multiple=multiple)

    @torch.no_grad()
    def __call__(
        self,
        labels: Sequence[int | str] | Tensor | int | str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        batch_size: int | None = None,
        solver: str | None = None,
        spacing: str | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Pictures: one for each label, or `batch_size` of them from a model without labels.

        labels: numbers or names. generator: one CPU generator for each picture; a single one is used for all in turn.
        num_inference_steps, guidance_scale, solver, spacing: as the model was saved, unless given.
        output_type: `pil`, `np` [B, H, W, C] in [0, 1], or `pt` [B, C, H, W] in [0, 1].
        """
        spec = ModelSpec.from_dict(dict(self.config["spec"]))
        ids = self._ids(spec, labels)
        count = len(ids) if ids is not None else batch_size or (len(generator) if isinstance(generator, (list, tuple)) else 1)
        if generator is None:
            generators = [torch.Generator("cpu").manual_seed(int(torch.randint(2**63 - 1, ()))) for _ in range(count)]
        elif isinstance(generator, torch.Generator):
            generators = [generator] * count
        else:
            generators = list(generator)
        if len(generators) != count:
            raise ValueError(f"{len(generators)} generators were given for {count} pictures; give one for each picture")
        scale = spec.guidance_scale if guidance_scale is None else guidance_scale
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is pil, np or pt, not {output_type!r}")
        if scale != 1 and not spec.null_class:
            raise ValueError("label guidance needs a model trained with label dropout; this one knows no null class")

        solver, steps, spacing = choose(spec, solver, num_inference_steps, spacing)
        precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(self.unet.dtype, "fp32")
        walk = trajectory(
            Denoiser(self.unet, spec, self.config["multiple"], precision),
            PictureNoise(generators, spec.shape, spec.process.noise),
            None if ids is None else torch.tensor(ids, device=self._execution_device),
            solver=solver,
            steps=steps,
            spacing=spacing,
            mixing=Mixing(scale, spec.guidance_interval),
            device=self._execution_device,
        )
        with self.progress_bar(total=steps) as bar:
            for state in walk:
                bar.update(0 < state.step <= steps)
        pictures = ((state.x0 + 1) / 2).clamp(0, 1).cpu()
        if output_type == "pt":
            images: Any = pictures
        elif output_type == "np":
            images = pictures.permute(0, 2, 3, 1).numpy()
        else:  # halves go up, as in the pictures that diffsteer writes
            images = self.numpy_to_pil(((pictures * 255 + 0.5).floor() / 255).permute(0, 2, 3, 1).numpy())
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As diffusers saves, and with what it leaves out: the code, without which the copy would not open."""
        if kwargs.pop("push_to_hub", False):
            raise ValueError("diffusers would upload the folder before its code is in it: save it, then upload the folder")
        super().save_pretrained(save_directory, *args, **kwargs)
        folder = Path(save_directory)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        index["_class_name"] = ["pipeline", type(self).__name__]
        shutil.copyfile(inspect.getfile(type(self)), folder / "pipeline.py")
        if not type(self.unet).__module__.startswith("diffusers."):
            index["unet"] = ["network", type(self.unet).__name__]
            shutil.copyfile(inspect.getfile(type(self.unet)), folder / "unet" / "network.py")
        (folder / "model_index.json").write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def _ids(spec: ModelSpec, labels: Sequence[int | str] | Tensor | int | str | None) -> list[int] | None:
        names = list(spec.label_names)
        if not spec.labelled:
            if labels is not None:
                raise ValueError("this model was trained without labels; leave `labels` out")
            return None
        if labels is None:
            raise ValueError(f"say what to draw: labels=[...], of {', '.join(names[:12])}" + (" ..." if len(names) > 12 else ""))
        labels = labels.tolist() if isinstance(labels, Tensor) else labels
        asked = [labels] if isinstance(labels, (int, str)) else list(labels)
        ids = []
        for label in asked:
            known = names.index(label) if label in names else int(label) if isinstance(label, int) or str(label).isdecimal() else -1
            if not 0 <= known < len(names):
                raise ValueError(f"there is no label {label!r}; there are {', '.join(names[:12])}" + (" ..." if len(names) > 12 else ""))
            ids.append(known)
        return ids
