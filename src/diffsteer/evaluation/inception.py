"""Inception v3 as a network that looks, for FID and KID as papers give them: torch-fidelity's network, from a file of its weights.

torch-fidelity imports torchvision, so it is an extra: `pip install 'diffsteer[inception]'`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from diffsteer.errors import Mistake
from diffsteer.evaluation.basis import Extractor
from diffsteer.evaluation.features import FeatureExtractor

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
WHERE = "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights"
BATCH = 32


def inception_extractor(weights: Path, device: torch.device | str = "cpu") -> FeatureExtractor:
    """2,048 features a picture, of uint8 pictures grey or colour: what FID and KID are told of since Heusel et al. 2017.

    Grey pictures are repeated to three channels; uint8 goes in as uint8, and is brought to 299x299 as TensorFlow 1 did it. Mistake where
    the file or torch-fidelity is missing, or the file holds something else.
    """
    network = _network(Path(weights).expanduser()).to(device)
    told = Extractor("inception", hashlib.sha256(Path(weights).expanduser().read_bytes()).hexdigest())
    return FeatureExtractor(told, torch.device(device).type, lambda pictures: _features(network, pictures, device))


@torch.no_grad()
def _features(network: Callable[[Tensor], tuple[Tensor]], pictures: Tensor, device: torch.device | str) -> Tensor:
    seen = [network(some.expand(-1, 3, -1, -1).to(device))[0].cpu().double() for some in pictures.split(BATCH)]
    return torch.cat(seen)


def _network(weights: Path) -> nn.Module:
    if not weights.is_file():
        raise Mistake(f"There is no file {weights}; --extractor is judge, or the file of Inception's weights, {WEIGHTS} from {WHERE}.")
    try:
        from torch_fidelity import FeatureExtractorInceptionV3
    except ImportError as error:
        raise Mistake(
            f"Inception's features need torch-fidelity, and that cannot be imported ({error}): pip install 'diffsteer[inception]'. "
            "It brings torchvision, which has to come from the same index as torch."
        ) from error
    try:
        # torch-fidelity would read the file as a pickle that may run code. It is given weights that were read without.
        safe = io.BytesIO()
        torch.save(torch.load(weights, map_location="cpu", weights_only=True), safe)
        safe.seek(0)
        return FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=safe)
    except (RuntimeError, UnpicklingError, EOFError, TypeError, AttributeError, ValueError) as error:
        first = " ".join(str(error).split())[:120].rstrip(".")
        raise Mistake(f"{weights} does not hold Inception's weights ({first}); take {WEIGHTS} from {WHERE}.") from error
