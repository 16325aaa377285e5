import torch
from torch.nn import functional as F

picture = torch.rand(1, 1, 28, 28)
patches = F.pixel_unshuffle(picture, 2)
print(f"{list(picture.shape)} -> {list(patches.shape)}, and back again: {torch.equal(F.pixel_shuffle(patches, 2), picture)}")
