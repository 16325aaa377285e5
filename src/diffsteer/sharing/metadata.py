"""What a model card says to the Hub in its YAML: task, tags, data, and a result for every measure, as its pages and searches read them.

In: what is known of a model. Out: `ModelCardData`. `card.py` writes the page below it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from diffsteer.comparable import MEASURES
from diffsteer.data.tables import SHORT_NAMES
from diffsteer.record import Fact, Score
from diffsteer.sharing.facts import Known
from diffsteer.sharing.licences import Licences

TASK = "unconditional-image-generation"  # what the Hub calls models that draw without being told in words


def metadata(known: Known, licences: Licences, title: str) -> ModelCardData:
    spec, results = known.denoiser.spec, list(_results(known))
    return ModelCardData(
        license=licences.model,
        license_name="other" if licences.model == "other" else None,
        library_name="diffusers",
        pipeline_tag=TASK,
        tags=["diffsteer", "diffusion", "pixel-space", *(["class-conditional"] if spec.labelled else [])],
        datasets=_hub_data(known),
        model_name=title if results else None,  # of the results; alone the Hub knows no such key
        eval_results=results or None,
    )


def _hub_data(known: Known) -> list[str] | None:
    """The data's id on the Hub, where its name leaves no doubt: any other a/b may have been a folder."""
    data = None if known.run is None else SHORT_NAMES.get(known.run.settings.data)
    return None if data is None else [data]


def _results(known: Known) -> Iterator[EvalResult]:
    """A result for each measure, its error, floor and count among its arguments."""
    for kind, score in scores_of(known).items():
        count, seen, real = score.facts["number of drawn pictures"], score.facts["seen by"], real_pictures(score)
        source = str(real["source"])
        arguments = {
            "count": count.exact,
            "error": _six(score.number.error),
            "floor": _six(score.floor.value),
            "floor_error": _six(score.floor.error),
            "features": seen.words,
        }
        yield EvalResult(
            task_type=TASK,
            dataset_type=SHORT_NAMES.get(source, re.sub(r"[^\w./-]+", "-", Path(source).name) or "pictures"),
            dataset_name=f"{source}, {real['count']:,} pictures",
            dataset_split=real.get("split"),
            metric_type=metric_type(kind, seen),
            metric_name=MEASURES[kind].title if kind in MEASURES else kind,
            metric_value=_six(score.number.value),
            metric_args={key: value for key, value in arguments.items() if value is not None},
        )


def metric_type(kind: str, seen: Fact) -> str:
    """The Hub's id of a metric: FID is what Inception's features give, and no others."""
    return "fid" if kind == "frechet" and seen.words.startswith("inception") else {"frechet": "frechet-distance"}.get(kind, kind)


def scores_of(known: Known) -> Mapping[str, Score]:
    return {} if known.scoring is None else known.scoring.scores


def real_pictures(score: Score) -> Mapping[str, Any]:
    """The real pictures that it was compared with, as `evaluation.basis.Reference` has them."""
    return dict(json.loads(str(score.facts["real pictures"].exact)))


def _six(value: float | None) -> float | None:
    """Six digits, which is more than any error here leaves."""
    return None if value is None else float(f"{value:.6g}")
