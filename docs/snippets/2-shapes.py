import torch

import diffsteer

network = diffsteer.load("runs/first").network


def tell(name):
    def told(part, given, answer):
        print(f"{name:14} {list((answer[0] if isinstance(answer, tuple) else answer).shape)}")

    return told


parts = ["conv_in", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1", "conv_out"]
hooks = [network.get_submodule(part).register_forward_hook(tell(part)) for part in parts]
with torch.no_grad():
    network(torch.randn(1, 1, 8, 8), 500)
for hook in hooks:
    hook.remove()
print(f"{sum(weights.numel() for weights in network.parameters()):,} parameters")
