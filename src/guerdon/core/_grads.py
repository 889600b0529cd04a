"""The backward pass of `linear_logp`: gradients of its results in hidden states, weight and bias, tile by tile."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.core._logits import Logits, put, widens
from guerdon.core._sums import Facts, Kept, LinearLogp


class LogpGrad:
    """Gradient of logp alone in a tile of logits, `g (onehot - p)`: each row is `-g / s` times `exp(x)`, or `1 - s` at the target.

    The factor of a row goes to the thin sides of the products, so that a tile whose exponentials were kept needs no pass of its own.
    """

    def __init__(self, policy: Logits, facts: Facts, grads: LinearLogp) -> None:
        self.policy = policy
        assert grads.logp is not None
        self.row = -grads.logp * torch.exp(-facts.log_s)
        # 1 - s in the unit of exp(x), from the target's own x; near 0 where the target is nearly certain, and exact there.
        self.at_target = torch.expm1(policy.own - policy.shift) - torch.expm1(facts.log_s)

    def tile(self, a: int, b: int, column: Tensor, kept: Tensor | None) -> Tensor:
        g = self.policy.tile(a, b).exp_() if kept is None else kept
        put(g, column, self.at_target[a:b])
        return g


class FullGrad:
    """Gradient of all results in a tile of logits: `p (A + B log p + C p - D log q) - E q`, with its own value at the target.

    With g the gradients of the results, H = entropy, S = sum p^2 and K = KL(p || q), of policy p and reference q:

        d logp = onehot - p;  d H = -p (log p + H);  d S = 2 p (p - S);  d KL(p || q) = p (log p - log q - K);  d KL(q || p) = p - q
    """

    row = None

    def __init__(self, policy: Logits, ref: Logits | None, facts: Facts, grads: LinearLogp) -> None:
        self.policy, self.facts = policy, facts
        self.squares, to_ref, self.back = (g is not None for g in grads[2:5])
        self.ref = ref if to_ref or self.back else None
        out, none = facts.out, torch.zeros_like(facts.log_s)
        logp, entropy, sum_p2, to, back = (none if g is None else g for g in grads[:5])
        self.a, self.b, self.c, self.d, self.e = back - logp, to - entropy, 2 * sum_p2, to, back
        for g, value in ((entropy, out.entropy), (self.c, out.sum_p2), (to, out.kl_to_ref)):
            if value is not None:
                self.a = self.a - g * value
        p = out.logp.exp()
        inner, outer = self.b * out.logp + self.c * p, none
        if out.ref_logp is not None:
            inner, outer = inner - to * out.ref_logp, back * out.ref_logp.exp()
        # logp's part of it is g (1 - p), without the digits that 1 - p loses.
        self.at_target = p * (self.a + logp + inner) - outer - logp * torch.expm1(out.logp)

    def tile(self, a: int, b: int, column: Tensor, kept: Tensor | None) -> Tensor:
        policy, grid, rows = self.policy, self.policy.grid, slice(a, b)
        shape, log_s = (b - a, policy.range[1] - policy.range[0]), self.facts.log_s[rows, None]
        p, slope = grid.buffer("p", shape, policy.acc), None
        if kept is None:
            x = policy.tile(a, b)
            if policy.of.softcap:
                slope = policy.slope(grid.buffer("slope", shape, x.dtype).copy_(x), a, b)
            torch.exp(x.sub_(log_s), out=p)
        else:
            torch.mul(kept, torch.exp(-log_s), out=p)
            x = torch.log(p, out=grid.buffer("policy logits", shape, p.dtype)).clamp_(min=-1e4)  # p may have become 0
        x.mul_(self.b[rows, None]).add_(self.a[rows, None])
        if self.squares:
            x.addcmul_(p, self.c[rows, None])
        y = None
        if self.ref is not None and self.facts.ref_log_s is not None:
            y = self.ref.tile(a, b).sub_(self.facts.ref_log_s[rows, None])
            x.addcmul_(y, self.d[rows, None], value=-1)
        g = p.mul_(x)
        if y is not None and self.back:
            g.addcmul_(y.exp_(), self.e[rows, None], value=-1)
        put(g, column, self.at_target[rows])
        return g if slope is None else g.mul_(slope)


class Products:
    """Gradients in hidden states, weight and bias, as tiles of gradients in the logits come in. wanted: which of the three. home: where the
    weight's is to go; a range of it may hold what is still read, and is written when the range is done."""

    def __init__(self, policy: Logits, row: Tensor | None, wanted: tuple[bool, bool, bool], home: Tensor | None) -> None:
        self.policy, self.grid, self.home = policy, policy.grid, home
        hidden, weight, bias = policy.of[:3]
        self.row = policy.factor if row is None else row[:, None] * policy.factor
        # Zeroed where no tile would come by.
        new = torch.empty_like if len(hidden) else torch.zeros_like
        self.hidden = torch.zeros_like(hidden, dtype=policy.acc) if wanted[0] else None
        self.weight = None if not wanted[1] else new(weight) if home is None else home
        self.bias = torch.zeros_like(bias, dtype=policy.acc) if bias is not None and wanted[2] else None
        self.left = (hidden * self.row).to(policy.compute) if wanted[1] else None

    def open(self) -> None:
        """Begin the vocabulary range that the policy has turned to."""
        v, w = self.policy.range
        if self.weight is not None:
            part = self.weight[v:w]
            own = part.dtype == self.policy.acc and self.home is None
            self.part = part if own else self.grid.buffer("weight sum", part.shape, self.policy.acc)

    def add(self, a: int, b: int, g: Tensor) -> None:
        policy, (v, w) = self.policy, self.policy.range
        if self.bias is not None:
            self.bias[v:w] += g.sum(0) * policy.factor
        if g.dtype != policy.compute:
            g = self.grid.buffer("g", g.shape, policy.compute).copy_(g)
        if self.hidden is not None:
            self._accumulate(self.hidden[a:b], g, policy.weight, first=False)
        if self.left is not None:
            self._accumulate(self.part, g.t(), self.left[a:b], first=a == 0)

    def close(self) -> None:
        """End of a vocabulary range."""
        v, w = self.policy.range
        if self.weight is not None and self.part.data_ptr() != self.weight[v:w].data_ptr():
            self.weight[v:w] = self.part

    def _accumulate(self, into: Tensor, x: Tensor, y: Tensor, *, first: bool) -> None:
        """`into += x @ y`, or `=` at first; narrow products are summed wide, at worst after being rounded once each."""
        if not self.policy.narrow:
            into.addmm_(x, y, beta=0 if first else 1)
            return
        if widens(into.device):
            if first:
                torch.mm(x, y, out_dtype=into.dtype, out=into)
            else:
                torch.addmm(into, x, y, out_dtype=into.dtype, out=into)
            return
        product = torch.mm(x, y, out=self.grid.buffer("product", into.shape, y.dtype))
        if first:
            into.copy_(product)
        else:
            into.add_(product)

    def done(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        hidden, bias = self.hidden, self.bias
        return (
            None if hidden is None else hidden.mul_(self.row).to(self.policy.of.hidden.dtype),
            self.weight,
            None if bias is None or self.policy.of.bias is None else bias.to(self.policy.of.bias.dtype),
        )


def gradients(
    policy: Logits,
    ref: Logits | None,
    targets: Tensor,
    facts: Facts,
    grads: LinearLogp,
    kept: Kept,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """In hidden `(M, D)`, weight `(V, D)` and bias `(V,)`, None where not wanted. grads: of the results, None where unused."""
    alone = grads.logp is not None and all(g is None for g in grads[1:]) and not policy.of.softcap and not wanted[2]
    tiles = LogpGrad(policy, facts, grads) if alone else FullGrad(policy, ref, facts, grads)
    products = Products(policy, tiles.row, wanted, kept.grad)
    for v, w in policy.grid.columns():
        policy.turn_to(v, w)
        if ref is not None and not alone:
            ref.turn_to(v, w)
        products.open()
        for a, b in policy.grid.rows():
            products.add(a, b, tiles.tile(a, b, targets[a:b] - v, kept.tile((a, b), (v, w))))
        products.close()
    return products.done()
