"""How a measurement is made: handed as JSON to the processes that make it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LR = 1e-6
QUIET = {
    "HF_HUB_OFFLINE": "1",  # also keeps every side from reporting its use
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class Settings:
    """threads: of torch, on both sides. repeats: most samples of a side in a phase. budget: seconds a phase may take after its warm-up.
    trl_dtype: "bfloat16" is TRL's default (float32 weights, autocast). trl_attention: its attention implementation, None for its default.
    compiled: torch.compile on both sides. trl: False leaves TRL out. model, batch: an enlarged workload; toy: a small one.
    clock: the page's seconds: "seconds" (wall) or "cpu" (of the process, all threads), which says more on a busy machine.
    """

    threads: int = 2
    device: str = "cpu"
    repeats: int = 5
    budget: float = 24.0
    trl_dtype: str = "bfloat16"
    trl_attention: str | None = None
    compiled: bool = False
    trl: bool = True
    model: str = "22m"
    batch: int = 1
    toy: bool = False
    clock: str = "seconds"
    results: str = str(RESULTS)

    @property
    def folder(self) -> Path:
        return Path(self.results)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        return cls(**json.loads(text))

    def workload(self, name: str) -> Any:
        """The workload of this name at the size asked for."""
        from benchmarks.workloads import BY_NAME, enlarged, toy

        found = BY_NAME[name]
        if self.toy:
            return toy(found)
        return found if (self.model, self.batch) == ("22m", 1) else enlarged(found, model=self.model, batch=self.batch)

    def environment(self) -> dict[str, str]:
        """Of the processes that measure."""
        threads = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.device == "cpu" else {}
        return {"OMP_WAIT_POLICY": "passive", **os.environ, **QUIET, **threads, **hidden}
