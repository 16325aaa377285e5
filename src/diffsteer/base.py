"""The model that a fine-tuning begins with: read before the run, and what it could do set against the tuned model after it.

Called by `run.py`. What becomes of its network is said by `training/finetune.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffsteer import previews
from diffsteer.config import FinetuneSettings
from diffsteer.data.pixels import to_signed
from diffsteer.data.whole import whole_file
from diffsteer.diffusion.denoiser import Denoiser, ModelSpec
from diffsteer.diffusion.judge import Judge, load_judge
from diffsteer.diffusion.networks import size_multiple
from diffsteer.diffusion.seeds import generator_for
from diffsteer.errors import Mistake
from diffsteer.evaluation.features import judge_features, judge_labels
from diffsteer.evaluation.frechet import frechet_distance
from diffsteer.runfolder import RunFolder
from diffsteer.sampling.draw import Job, draw
from diffsteer.sampling.folder import find_model, load_model

# Noise levels, sigma over alpha + sigma, at which a network is asked what it knows of a picture.
LEVELS = (0.4, 0.55, 0.7, 0.85)
BATCH = 64


@dataclass(frozen=True)
class Base:
    """The base as it was found: its folder here, a denoiser, the hash of its weights, and sentences about it."""

    folder: Path
    denoiser: Denoiser
    weights: str
    notes: tuple[str, ...]

    def again(self, device: str) -> Denoiser:
        """The base as it was, which a run has made its own."""
        return load_model(str(self.folder), device=device)


def read_base(settings: FinetuneSettings, out: Path | None) -> Base:
    """The base that the settings name. Raises Mistake."""
    run = RunFolder(Path(settings.model).expanduser())
    if out is not None and run.path.resolve() == out.resolve():
        raise Mistake(f"{out} is the base itself; give --out another folder.")
    folder = find_model(settings.model)
    denoiser = load_model(str(folder))
    notes = denoiser.notes
    if run.exists and not run.resolved().finished:
        notes += (f"The run {settings.model} is not finished; its model is the last that it saved.",)
    if settings.judge is not None:
        load_judge(settings.judge)  # one that cannot be read is said now, not when the training is over
    return Base(folder, denoiser, weights_hash(denoiser.network), notes)


def weights_hash(network: nn.Module) -> str:
    """16 hex digits that tell the names, shapes and values of a network's weights (BLAKE2)."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# ---- what is kept ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """Pictures of kept labels: how many, and which share of them is read as the label that was asked for, by whom."""

    pictures: int
    labels: tuple[str, ...]
    before: float
    after: float
    reader: str


@dataclass(frozen=True)
class Kept:
    """The base and the tuned model set against one another on `pictures` that both drew from the same seeds: those of the previews.

    change: the mean difference of two such pictures, of values in [0, 1]; apart: that of two of the base's own from different seeds.
    error_before, error_after: the mean square error, in [-1, 1], of the base's and of the tuned model's guess of the base's pictures from
    noisy ones; the tuned model is told the same label, or none where it does not know it.
    read: labels that both models know, as the base itself reads them: of each picture it guesses best when told the right label, or it
    does not. judged, frechet: the same as a judge reads them, and the distance of the two models' pictures in its features, of two or more.
    """

    pictures: int
    change: float
    apart: float
    error_before: float
    error_after: float
    read: Share | None
    judged: Share | None
    frechet: float | None

    def sentence(self) -> str:
        shares = [share for share in (self.judged, self.read) if share is not None]
        said = [f"pictures of the same seeds differ by {self.change:.3f} (two of the base's by {self.apart:.3f})"]
        said += [f"error on the base's pictures {self.error_before:.4f} before, {self.error_after:.4f} after"]
        said += [f"labels read by {share.reader} {share.before:.0%} before, {share.after:.0%} after" for share in shares[:1]]
        return "; ".join(said)

    def write(self, file: Path) -> None:
        with whole_file(file) as part:
            part.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class _Pair(NamedTuple):
    """One picture's label in the base and in the tuned model, and its seed."""

    before: int | None
    after: int | None
    seed: int


def kept(base: Denoiser, tuned: Denoiser, judge: Judge | None, device: str) -> Kept:
    """What the tuned model kept of its base; both on `device`."""
    base = _at_size(base, tuned.spec)
    pairs = _pairs(base.spec, tuned.spec)
    old = draw(base, [Job(pair.before, pair.seed) for pair in pairs], previews.preview_how(base.spec), device=device).pictures.cpu()
    new = draw(tuned, [Job(pair.after, pair.seed) for pair in pairs], previews.preview_how(tuned.spec), device=device).pictures.cpu()
    new_as_old, old_as_new = _in_channels(new, base.spec.channels), _in_channels(old, tuned.spec.channels)
    labels_before, labels_after = [pair.before for pair in pairs], [pair.after for pair in pairs]
    judged, distance = None, None
    if judge is not None:
        seen = [_in_channels(pictures, judge.spec.channels) for pictures in (old, new)]
        judged = _judged(judge, seen, pairs, base.spec)
        distance = frechet_distance(*(judge_features(judge, pictures) for pictures in seen)) if len(pairs) > 1 else None
    return Kept(
        pictures=len(pairs),
        change=_apart(old, new_as_old),
        apart=_apart(old, old.roll(1, 0)),
        error_before=float(_errors(base, old, labels_before, device).mean()),
        error_after=float(_errors(tuned, old_as_new, labels_after, device).mean()),
        read=_read(base, old, new_as_old, pairs, tuned.spec, device),
        judged=judged,
        frechet=distance,
    )


def kept_evaluations(spec: ModelSpec) -> int:
    """How often networks are asked for it, in pictures: what it costs."""
    count = len(previews.preview_jobs(spec))
    drawn = 2 * count * (previews.PREVIEW.steps or 1)
    return drawn + 2 * count * len(LEVELS) * (1 + min(previews.LABELS, len(spec.label_names)))


def _at_size(base: Denoiser, tuned: ModelSpec) -> Denoiser:
    """The base, drawing at the tuned model's size."""
    return Denoiser(base.network, replace(base.spec, height=tuned.height, width=tuned.width), size_multiple(base.network))


def _pairs(base: ModelSpec, tuned: ModelSpec) -> list[_Pair]:
    """The pictures of a preview of the base; a label goes with the one of its name, else with none, or with one of the same number."""
    pairs = []
    for job in previews.preview_jobs(_shared(base, tuned)):
        name = None if job.label is None else _shared(base, tuned).label_names[job.label]
        before = base.label_names.index(name) if name in base.label_names else None
        pairs.append(_Pair(before, _counterpart(name, before, job.seed, tuned), job.seed))
    return pairs


def _shared(base: ModelSpec, tuned: ModelSpec) -> ModelSpec:
    """The base's labels that the tuned model knows, or all where it knows none of them."""
    known = tuple(name for name in base.label_names if name in tuned.label_names)
    return replace(base, label_names=known or base.label_names)


def _counterpart(name: str | None, number: int | None, seed: int, tuned: ModelSpec) -> int | None:
    if not tuned.labelled:
        return None
    if name in tuned.label_names:
        return tuned.label_names.index(name)
    return tuned.null_id if tuned.null_class else (seed if number is None else number) % len(tuned.label_names)


def _in_channels(pictures: Tensor, channels: int) -> Tensor:
    """Pictures [N, C, H, W] as grey or as colour ones."""
    if pictures.shape[1] == channels:
        return pictures
    grey = pictures.float().mean(1, keepdim=True).round().to(pictures.dtype)
    return grey.expand(-1, channels, -1, -1).contiguous()


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().mean() / 255)


@torch.no_grad()
def _errors(denoiser: Denoiser, pictures: Tensor, labels: list[int | None], device: str) -> Tensor:
    """The mean square error of what the denoiser makes of these pictures, uint8 [N, C, H, W], at each noise level: [N, LEVELS]. The noise
    is a function of a picture's place."""
    process = denoiser.spec.process
    x0 = to_signed(pictures)
    noise = torch.stack([torch.randn(x0.shape[1:], generator=generator_for("kept", index)) for index in range(len(x0))])
    cond = torch.tensor(labels) if denoiser.spec.labelled else None
    errors = []
    for level in LEVELS:
        t = process.time_of(torch.tensor(level / (1 - level))).float().expand(len(x0))
        x_t = process.add_noise(x0, noise, t)
        guesses = []
        for rows in torch.arange(len(x0)).split(BATCH):
            asked = None if cond is None else cond[rows].to(device)
            guesses.append(denoiser(x_t[rows].to(device), t[rows].to(device), asked).cpu())
        errors.append((torch.cat(guesses) - x0).square().flatten(1).mean(1))
    return torch.stack(errors, 1)


def _read(base: Denoiser, old: Tensor, new: Tensor, pairs: list[_Pair], tuned: ModelSpec, device: str) -> Share | None:
    """The kept labels as the base reads them (the diffusion classifier of Li et al. 2023): told which of them, it guesses a noisy picture
    best. None where fewer than two are kept."""
    names = base.spec.label_names
    candidates = list(dict.fromkeys(pair.before for pair in pairs))
    kept_names = tuple(names[each] for each in candidates if each is not None and names[each] in tuned.label_names)
    if len(kept_names) < 2:
        return None
    asked = torch.tensor([candidates.index(pair.before) for pair in pairs])

    def right(pictures: Tensor) -> float:
        errors = torch.stack([_errors(base, pictures, [each] * len(pictures), device).mean(1) for each in candidates])
        return float((errors.argmin(0) == asked).float().mean())

    return Share(len(pairs), kept_names, right(old), right(new), "the base")


def _judged(judge: Judge, seen: list[Tensor], pairs: list[_Pair], base: ModelSpec) -> Share | None:
    """The labels as the judge reads them, of the pictures whose label it knows. None where it knows none."""
    names = [None if pair.before is None else base.label_names[pair.before] for pair in pairs]
    rows = [row for row, name in enumerate(names) if name in judge.spec.label_names]
    if not rows:
        return None
    asked = torch.tensor([judge.spec.label_names.index(str(names[row])) for row in rows])
    before, after = (float((judge_labels(judge, pictures[rows])[0] == asked).float().mean()) for pictures in seen)
    return Share(len(rows), tuple(dict.fromkeys(str(names[row]) for row in rows)), before, after, "the judge")
