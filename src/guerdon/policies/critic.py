"""A critic on a text policy: one linear layer on the state before each token says what is still to come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guerdon.errors import UserError
from guerdon.policies.head import plain

FILE = "value_head.safetensors"


class ValueHead(nn.Module):
    """`V = w h + b` of hidden states `(M, D)`, in float32 (float64 for a float64 model). All zero at first, so that every value is 0.

    Its gradient goes on into the network. Source: Ziegler et al. 2019, arXiv 1909.08593, section 2.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        weight = next(model.parameters())
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        self.linear = nn.Linear(plain(model).config.get_text_config().hidden_size, 1, device=weight.device, dtype=dtype)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(M, D) -> (M,)`."""
        return self.linear(hidden.to(self.linear.weight.dtype))[:, 0]

    def save(self, folder: Path) -> None:
        """Write `value_head.safetensors` beside the model."""
        save_file({k: v.detach().cpu().contiguous() for k, v in self.linear.state_dict().items()}, folder / FILE)

    @torch.no_grad()
    def read(self, folder: Path) -> None:
        """Take the weights that `save` wrote, where there are any. Raises UserError for a head of another width."""
        if not (folder / FILE).is_file():
            return
        saved = load_file(folder / FILE)
        for name, own in self.linear.named_parameters():
            if name not in saved or saved[name].shape != own.shape:
                raise UserError(f"{folder / FILE} is no value head of width {self.linear.in_features}", hint="it belongs to another model")
            own.copy_(saved[name])
