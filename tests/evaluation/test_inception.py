"""Inception's features by torch-fidelity, where it is installed; what is said where it, or the file of weights, is not."""

from __future__ import annotations

import builtins
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from diffsteer.errors import Mistake
from diffsteer.evaluation.inception import inception_extractor

HAS_TORCH_FIDELITY = importlib.util.find_spec("torch_fidelity") is not None


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(
        Mistake, match=r"There is no file .*weights\.pth; --extractor is judge, or the file of Inception's weights, pt_incep"
    ):
        inception_extractor(tmp_path / "weights.pth")


def test_without_torch_fidelity_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_torch_fidelity(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "torch_fidelity":
            raise ImportError("No module named 'torch_fidelity'")
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_torch_fidelity)
    (tmp_path / "weights.pth").write_bytes(b"any")
    with pytest.raises(Mistake, match=r"need torch-fidelity, .*: pip install 'diffsteer\[inception\]'\. It brings torchvision"):
        inception_extractor(tmp_path / "weights.pth")


# ---- where torch-fidelity is installed -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the right shapes that know nothing."""
    fidelity = pytest.importorskip("torch_fidelity")
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    bare = fidelity.FeatureExtractorInceptionV3.__new__(fidelity.FeatureExtractorInceptionV3)
    # Its constructor wants a file; these lines of it make the layers, and stop where that would be read.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        bare.__init__("inception", ["2048"], feature_extractor_weights_path="none")
    torch.save(bare.state_dict(), file)
    return file


@pytest.mark.skipif(not HAS_TORCH_FIDELITY, reason="needs diffsteer[inception]")
def test_its_features_are_torch_fidelitys(weights: Path) -> None:
    from torch_fidelity import FeatureExtractorInceptionV3

    pictures = torch.randint(256, (3, 3, 20, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    ours = inception_extractor(weights)
    theirs = FeatureExtractorInceptionV3("theirs", ["2048"], feature_extractor_weights_path=str(weights))(pictures)[0]
    found = ours.features(pictures)
    assert found.shape == (3, 2048) and found.dtype == torch.float64 and found.std() > 0
    torch.testing.assert_close(found, theirs.double())
    grey = pictures[:, :1]
    torch.testing.assert_close(ours.features(grey), ours.features(grey.repeat(1, 3, 1, 1)))
    assert ours.told.architecture == "inception" and len(ours.told.weights) == 64 and ours.told.accuracy is None


@pytest.mark.skipif(not HAS_TORCH_FIDELITY, reason="needs diffsteer[inception]")
def test_a_file_with_something_else_in_it_is_a_mistake_and_runs_no_code(tmp_path: Path, weights: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harmed",)

    torch.save({"weights": Harm()}, tmp_path / "harm.pth")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    for name in ("harm", "other", "list", "text"):
        with pytest.raises(Mistake, match=rf"{name}\.pth does not hold Inception's weights"):
            inception_extractor(tmp_path / f"{name}.pth")
    assert not (tmp_path / "harmed").exists()
