"""The few of torchvision's names that the peers import, where torch has no torchvision. Only benchmarks/peers.py uses it."""

from torchvision import transforms, utils

__all__ = ["transforms", "utils"]
