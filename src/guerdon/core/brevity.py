"""How much shorter is an answer than the right ones of its group?"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from guerdon.core.masked import Number, as_float, group_count, group_mean


def brevity_penalty(
    length: Shaped[Tensor, " N"],
    correct: Shaped[Tensor, " N"],
    group: Int[Tensor, " N"],
    *,
    p_max: Number = 0.5,
    tau: Number = 0.25,
    two_sided: bool = False,
) -> Float[Tensor, " N"]:
    """`-p_max clip((short - tau) / (1 - tau), 0, 1)` with `short = max(0, (ref - length) / ref)`, ref the mean length of the correct
    answers of the group; in [-p_max, 0].

    length: >= 0, in decisions. correct: nonzero where the answer is right; NaN (not judged) counts as not right. A group without a right
    answer, or whose right answers are empty, gives 0. p_max: >= 0, in units of reward. tau: in [0, 1), the share by which an answer may be
    shorter at no cost. two_sided: `short = |ref - length| / ref`, so that answers too long are punished alike.
    Raises ValueError for a p_max or tau out of range. Source: HARMO, arXiv 2510.05283; the published text gives P_max, tau and that the
    lengths of correct samples set the scale; the shape is our reconstruction.
    """
    if not (p_max >= 0 and 0 <= tau < 1):
        raise ValueError(f"p_max={p_max}, tau={tau}, expected p_max >= 0 and 0 <= tau < 1\nhint: 0.5 and 0.25 are the defaults")
    size = as_float(length)
    right = torch.nan_to_num(as_float(correct)) != 0
    lengths = torch.where(right, size, torch.nan)
    ref, known = group_mean(lengths, group), group_count(lengths, group) > 0
    known = known & (ref > 0)
    off = (ref - size) / torch.where(known, ref, 1.0)
    short = off.abs() if two_sided else off.clamp(min=0)
    return torch.where(known, -p_max * ((short - tau) / (1 - tau)).clamp(0, 1), 0.0)
