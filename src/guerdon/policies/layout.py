"""Which layout a network's batches have: a tree where the model can be served, branches where it gives its state at any token, else
padding. Found out once, when it is loaded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import torch

from guerdon.errors import UserError, nearest
from guerdon.policies.head import backbone, plain, takes_cuts, takes_positions
from guerdon.policies.packing import Layout
from guerdon.policies.tree import grow

if TYPE_CHECKING:
    from guerdon.policies.network import Network

log = logging.getLogger("guerdon")
LAYERS = {"full_attention", "sliding_attention"}
STRETCHED = {"dynamic", "longrope"}


def choose(network: Network, asked: str, known: tuple[str, ...]) -> Layout:
    """The layout to use: what was asked for, or for "auto" a tree where the model can be served, else branches, else padding, said in the
    log.

    Raises UserError for a name that is not among `known`, and for a layout that was asked for and would give other numbers.
    """
    if asked not in known:
        raise UserError(f"unknown layout {asked!r}", hint=nearest(asked, known))
    branched = "branched" in known and takes_cuts(network.model)
    if asked == "branched" and not branched:
        raise UserError(f"{type(plain(network.model)).__name__} does not give its state at any token", hint='use layout="auto"')
    if asked not in ("auto", "tree", "packed"):
        return cast(Layout, asked)
    if asked == "auto" and branched:
        return "branched"
    why = unserved(network)
    if why is None:
        return "tree" if asked == "auto" else cast(Layout, asked)
    family = type(plain(network.model)).__name__
    if asked != "auto":
        raise UserError(f"{family} cannot have layout {asked!r}: {why}", hint='use layout="padded"')
    log.info('%s runs on padded rows (layout="padded"), a shared prompt is computed once per row: %s', family, why)
    return "padded"


def unserved(network: Network) -> str | None:
    """Why the model cannot be given a tree; None when it can.

    The configuration says what a short probe would not show; the probe, a few rows that share their beginnings as a tree and one by one,
    shows all else: recurrent layers, learnt attention sinks, soft caps, attention outside transformers' interface.
    """
    config: Any = backbone(network.model).config.get_text_config()
    kinds = sorted(set(getattr(config, "layer_types", None) or ()) - LAYERS)
    if kinds:
        return f"it has layers of the kind {kinds[0]!r}"
    rope = getattr(config, "rope_parameters", None) or {}
    if STRETCHED & {r.get("rope_type") for r in (rope, *rope.values()) if isinstance(r, dict)}:
        return "it stretches the positions of all rows of a pass for the longest"
    if network.dropout:
        return "dropout gives every row noise of its own"
    if not takes_positions(network.model):
        return "it takes no positions, but counts tokens"
    try:
        gap, windows = _probe(network)
    except Exception as error:  # whatever a foreign model raises when it is called in a way that it does not know
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window and not windows and "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"]):
        return f"its sliding window of {window} tokens is not handed to its attention"
    wide = network.dtype in (torch.float32, torch.float64)
    return None if gap <= (1e-4 if wide else 5e-2) else f"its states on a tree differ by {gap:.1g} (relative)"


@torch.no_grad()
def _probe(network: Network) -> tuple[float, set[Any]]:
    """Largest difference of the hidden states of some rows, as a tree and padded, relative to the largest state; and the sliding
    windows that the attention was given."""
    vocab = backbone(network.model).config.get_text_config().vocab_size
    rows = torch.arange(5, 17, device=network.device).repeat(4, 1)
    rows[1:, 5:] += 20  # three rows share five tokens with the first, two of them nine with each other
    rows[3, 9:] += 20
    rows, length = rows % vocab, torch.tensor([12, 8, 12, 11], device=network.device)
    tree, slots = grow(rows, length, least=1)
    with network.exactly():
        apart = network.states(rows, torch.arange(12, device=network.device).expand(4, -1))
        together = network.states(tree.ids[None], tree.position[None], tree)[0][slots]
    real = torch.arange(12, device=network.device) < length[:, None]
    gap = (apart - together)[real].abs().max() / apart[real].abs().max()
    return float(gap.nan_to_num(torch.inf)), {window for _, window in tree.plans if window is not None}
