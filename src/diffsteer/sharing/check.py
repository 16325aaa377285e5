"""Does a folder open and draw where nobody knows diffsteer? Tried in a process of its own, as a stranger would.

That process holds no token and finds none, has no network, works in an empty home, and cannot import diffsteer. It does run the folder's
`pipeline.py`: who calls this has put our own there before (`pushing.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from diffsteer.errors import Mistake

# What a program needs to start, and nothing that could be secret.
KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "OMP_NUM_THREADS")
STRANGER = """
import json, sys
sys.modules["diffsteer"] = None
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
asked = {"labels": [0]} if json.loads(sys.argv[2]) else {"batch_size": 1}
picture = pipe(**asked, num_inference_steps=2).images[0]
print(json.dumps(picture.size))
"""


def check_opens(folder: Path, labelled: bool, size: tuple[int, int]) -> None:
    """Mistake where diffusers alone cannot open the folder and draw a picture of this (height, width) with it. Takes some seconds."""
    with tempfile.TemporaryDirectory() as home:
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        clean = {**kept, "HOME": home, "USERPROFILE": home, "HF_HOME": home, "TMPDIR": home, "HF_HUB_OFFLINE": "1"}
        ended = subprocess.run(
            [sys.executable, "-P", "-c", STRANGER, str(folder.resolve()), json.dumps(labelled)],
            cwd=home,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )
    if ended.returncode:
        why = (ended.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise Mistake(f"The folder does not open in diffusers alone, so it was not uploaded: {why[:300].rstrip('.')}.")
    width, height = json.loads(ended.stdout.splitlines()[-1])
    if (height, width) != size:
        raise Mistake(
            f"The folder opens in diffusers alone, but draws {height}x{width} instead of {size[0]}x{size[1]}, so it was not uploaded."
        )
