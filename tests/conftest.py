"""Shared by all tests: small work on one thread. Two threads for an 8x8 picture only wait for one another."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
