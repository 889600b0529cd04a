"""For all tests: no time limit per example (the first one compiles shape checks and loads libraries), no network, two threads in all."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub; subprocesses inherit it
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from hypothesis import settings

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, torch.get_num_threads()))
settings.register_profile("guerdon", deadline=None, max_examples=60)
settings.load_profile("guerdon")
