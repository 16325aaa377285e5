"""Several processes on one machine: the command starts itself again under accelerate, once for each, and watches them."""

from __future__ import annotations

import os
import subprocess
import sys

from diffsteer.errors import Stopped


def launched() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main_process() -> bool:
    """Whether this process is the only one, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def relaunch(processes: int) -> bool:
    """Runs this command line again in `processes` processes and waits for them; False where there is nothing to do. Raises Stopped."""
    if processes == 1 or launched():
        return False
    words = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes), "--num_machines", "1"]
    words += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    import torch

    words += ["--multi_gpu"] if torch.cuda.device_count() >= processes else ["--cpu"]
    ended = subprocess.run([*words, "--module", "diffsteer.cli", *sys.argv[1:]], check=False)
    if ended.returncode:
        raise Stopped("A process of this run ended before its time. Run the same command to go on from the newest checkpoint.")
    return True
