"""The lesson's question: does the size of the label's embedding matter? Sizes 1, 4 and 10, and one-hot, at equal steps on MNIST.

    python benchmarks/mnist_embedding.py --data mnist --steps 600 --out benchmarks/results/mnist-embedding.json

Each model is trained by `diffsteer train` with the flags below and the label as extra input channels, as the lesson does it, and draws
100 of each digit in 10 steps. A small CNN that never saw a drawn digit, trained here on the real ones, reads them; its own accuracy on
the test split stands beside the table.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import commands
from diffsteer.data.images import load_pictures

TRAINING = (
    *("--patch-size", "1", "--optimizer", "adamw", "--lr", "2e-3", "--warmup", "50", "--precision", "bf16"),
    *("--prediction", "flow", "--no-velocity-loss", "--guidance-scale", "1", "--guidance-interval", "0-1"),
)
VARIANTS = {
    "embedding 1": ["--conditioning", "concat", "--class-emb-size", "1"],
    "embedding 4": ["--conditioning", "concat", "--class-emb-size", "4"],
    "embedding 10": ["--conditioning", "concat", "--class-emb-size", "10"],
    "one-hot": ["--conditioning", "onehot"],
}


def judge(data: str, seed: int = 0) -> tuple[nn.Module, float]:
    """A small CNN trained on the real digits for two epochs, and its accuracy on the test split."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Dropout(0.25), nn.Linear(128, 10)),
    )
    train, test = load_pictures(data), load_pictures(data, split="test")
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for epoch in range(2):
        for start in range(0, train.count - 256, 256):
            batch = train.take(seed, epoch, start, start + 256)
            assert batch.labels is not None
            optimizer.zero_grad()
            F.cross_entropy(net(batch.pixels / 255), batch.labels).backward()
            optimizer.step()
    net.eval()
    whole = test.at(range(test.count))
    assert whole.labels is not None
    return net, (read(net, whole.pixels) == whole.labels).float().mean().item()


@torch.no_grad()
def read(net: nn.Module, pictures: Tensor) -> Tensor:
    """The digits that the judge sees in uint8 pictures [N, 1, 28, 28]."""
    return torch.cat([net(part / 255).argmax(1) for part in pictures.split(1000)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--steps", default="600")
    parser.add_argument("--batch-size", default="64")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--runs", type=Path, default=Path("runs/embedding"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()

    net, accuracy_on_real = judge(given.data)
    rows = []
    for name, flags in VARIANTS.items():
        run = given.runs / name.replace(" ", "-")
        options = ["--steps", given.steps, "--batch-size", given.batch_size, "--seed", given.seed, "--figures", "data", *flags]
        commands.told("train", given.data, *TRAINING, "--out", str(run), *options)
        drawn = run / "drawn.npz"
        commands.told("sample", str(run), "--labels", "all", "--per-label", "100", "--steps", "10", "--out", str(drawn), "--overwrite")
        arrays = np.load(drawn)
        seen = read(net, torch.from_numpy(arrays["arr_0"]).permute(0, 3, 1, 2))
        labels = torch.from_numpy(arrays["arr_1"])
        share = (seen == labels).float().mean().item()
        last = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()[-100:]]
        rows.append({"label": name, "accuracy": round(share, 4), "loss_last_100": round(sum(last) / len(last), 5)})
        sys.stdout.write(f"{name:14} accuracy {share:.3f}  loss {rows[-1]['loss_last_100']:.4f}\n")
        sys.stdout.flush()
    result = {
        "what": "accuracy of the asked digit, 1,000 pictures a row, read by a CNN trained on real digits only",
        "steps": int(given.steps),
        "batch_size": int(given.batch_size),
        "seed": int(given.seed),
        "judge_accuracy_on_test_split": round(accuracy_on_real, 4),
        "standard_error_at_0.9": round((0.9 * 0.1 / 1000) ** 0.5, 4),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, CPU",
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "rows": rows,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
