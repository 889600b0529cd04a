"""Low-rank adapters through peft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from guerdon._need import need
from guerdon.errors import UserError


@dataclass(frozen=True)
class Lora:
    """Train `W + (alpha / r) B A` with B, A of rank r in place of W (Hu et al. 2021, arXiv 2106.09685, eq. 3). B starts at 0, so the
    model is unchanged at first.

    targets: "all-linear" (every linear layer but the head) or names of layers. seed: of A's random start.
    """

    r: int = 8
    alpha: float = 16.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.r < 1:
            raise UserError(f"LoRA rank {self.r}, expected an integer >= 1")

    def wrap(self, model: Any, task: Literal["CAUSAL_LM", "SEQ_CLS"] = "CAUSAL_LM", keep: tuple[str, ...] = ()) -> Any:
        """The model with new adapters; everything else frozen but the modules in `keep`, which are trained whole."""
        peft = need("peft", extra="peft")
        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        config = peft.LoraConfig(
            r=self.r, lora_alpha=self.alpha, target_modules=targets, lora_dropout=0.0, task_type=task, modules_to_save=list(keep) or None
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            try:
                return peft.get_peft_model(model, config)
            except ValueError as error:
                raise UserError(
                    f"LoRA targets {self.targets}: {error}", hint='name linear layers of the model, or use "all-linear"'
                ) from error


def load_adapter(model: Any, folder: str, *, train: bool) -> Any:
    """The model with the adapter in `folder`. train: go on with that adapter; otherwise it is merged into the weights."""
    peft = need("peft", extra="peft")
    config = peft.PeftConfig.from_pretrained(folder)
    if config.task_type == "CAUSAL_LM" and not hasattr(model, "prepare_inputs_for_generation"):
        config.task_type = None  # an adapter of a language model on a reward model: peft must not look for a generator
    wrapped = peft.PeftModel.from_pretrained(model, folder, is_trainable=train, config=config)
    return wrapped if train else wrapped.merge_and_unload(safe_merge=True)


def adapter_base(folder: str) -> str:
    """Where the model under an adapter folder comes from."""
    peft = need("peft", extra="peft")
    base = peft.PeftConfig.from_pretrained(folder).base_model_name_or_path
    if not base:
        raise UserError(
            f"the adapter in {folder!r} does not name its base model", hint="set base_model_name_or_path in adapter_config.json"
        )
    return base


def merged(model: Any) -> Any:
    """A copy with the adapters merged into the weights. The model itself is not touched: merging and taking apart again would leave
    rounding errors behind, and a run that saved would no longer equal one that did not."""
    import copy

    return copy.deepcopy(model).merge_and_unload(safe_merge=True) if is_adapted(model) else model


def is_adapted(model: Any) -> bool:
    """Whether a model carries peft adapters."""
    return hasattr(model, "merge_and_unload") and hasattr(model, "get_base_model")
