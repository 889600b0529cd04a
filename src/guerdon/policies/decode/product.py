"""Matrix products whose numbers do not depend on how many rows are multiplied at a time.

A product library chooses its order of summation by the shape; two shapes, two roundings, and once in some ten thousand tokens another
token. Three habits keep the order of each row's sums the same in any company (float32 and float64 on a CPU; tested bit for bit):
features stand first in the result, so that rows are the columns of `W x`; long sums are split into parts of fixed length; and a single row,
which a library takes for a vector, is given company.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

PART = 512
"""Terms of a sum that are added in one product."""


def product(weight: Float[Tensor, "O I"], x: Float[Tensor, "N I"], out: Float[Tensor, "O N"] | None = None) -> Float[Tensor, "O N"]:
    """`W x^T`. out: where to write it."""
    if x.shape[0] == 1:
        both = product(weight, torch.cat([x, x]))[:, :1]
        return both if out is None else out.copy_(both)
    size = weight.shape[1]
    if size <= PART or weight.element_size() < 4 or weight.device.type != "cpu":
        return torch.mm(weight, x.t()) if out is None else torch.mm(weight, x.t(), out=out)
    found = product(weight[:, :PART], x[:, :PART], out)
    for start in range(PART, size, PART):
        found.addmm_(weight[:, start : start + PART], x[:, start : start + PART].t())
    return found
