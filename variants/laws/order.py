"""Laws on who influences whom: across the batch, from the future, and how far."""

import torch
from jaxtyping import Bool
from torch import Tensor

from variants.laws.asking import call, same
from variants.laws.case import LENGTH, Broken, Case, Inputs, Skipped

# What a key changes in a row that it acts on is more, and what rounding changes is less.
_EFFECT = {torch.float64: 1e-13, torch.float32: 1e-5}


def batch_independence(case: Case) -> None:
    """An example alone gives what it gives in a batch."""
    attention = case.build()
    for masked in case.masks():
        x = case.draw(masked=masked, batch=3)
        out = call(attention, x)
        for b in range(3):
            mask = None if x.key_mask is None else x.key_mask[b : b + 1]
            alone = Inputs(x.q[b : b + 1], x.k[b : b + 1], x.v[b : b + 1], mask)
            same(out[b : b + 1], call(attention, alone), f"example {b} of a batch against it alone")


def causality(case: Case) -> None:
    """Other queries, keys and values from a position on change no row before it."""
    if not case.causal:
        raise Skipped("not causal")
    attention = case.build()
    x, other = case.draw(), case.draw(seed=6)
    before = call(attention, x)
    for t in (1, 2, 3, 4, 8, 33, 63, 64, 65, LENGTH - 1):
        late = (torch.arange(LENGTH, device=case.device) >= t)[:, None]
        q, k, v = (torch.where(late, 9.0 * b, a) for a, b in ((x.q, other.q), (x.k, other.k), (x.v, other.v)))
        out = call(attention, Inputs(q, k, v))
        same(out[:, :, :t], before[:, :, :t], f"rows before {t} when all from {t} on changes")


def reach(case: Case) -> None:
    """Keys act as far as cost() says, back and forward, and no further."""
    if case.dtype not in _EFFECT:
        raise Skipped(f"rounding to {case.dtype} hides small effects")
    attention = case.build()
    effect = _effects(case)
    far = torch.arange(LENGTH, device=case.device)[:, None] - torch.arange(LENGTH, device=case.device)
    x = case.draw(batch=1)
    cost = attention.cost(x.request())
    for name, declared, distance in (("reach", cost.reach, far), ("look_ahead", cost.look_ahead, -far)):
        furthest = max(int(distance[effect].max()), 0)
        limit = LENGTH - 1 if declared is None else min(declared, LENGTH - 1)
        if furthest > limit:
            raise Broken(f"{name} is declared as {declared}, but a key acts over {furthest} positions")
        # Where positions alone do not decide, the furthest keys of this input may play no part.
        if furthest < limit and not (
            attention.pattern is None and declared is None and furthest > limit // 2
        ):
            raise Broken(f"{name} is declared as {declared}, but no key acts over more than {furthest}")
    if attention.pattern is None:
        return
    missing = (attention.pattern.dense(LENGTH, LENGTH).to(case.device) & ~effect).nonzero()
    if len(missing):
        i, j = missing[0].tolist()
        raise Broken(f"the pattern keeps key {j} for query {i}, but a change there changes nothing")


def _effects(case: Case) -> Bool[Tensor, "N M"]:
    """Whether row i changes when key and value j do: one example for each j, and one left as it was."""
    attention = case.build()
    x, other = case.draw(batch=1), case.draw(batch=1, seed=7)
    one = torch.eye(LENGTH, dtype=torch.bool, device=case.device)[:, None, :, None]
    k, v = torch.where(one, other.k, x.k), torch.where(one, other.v, x.v)
    out = call(attention, Inputs(x.q.expand(k.shape), k, v))
    return ((out - call(attention, x)).abs() > _EFFECT[case.dtype]).any(-1).any(1).T
