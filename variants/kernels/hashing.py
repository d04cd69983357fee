"""Attention inside buckets: positions sorted by bucket, cut into chunks, each chunk with the one before it.

Every round of hashing sorts the positions anew. A round is one fused call over chunks of the sorted rows,
with a mask that keeps what shares a bucket; the rounds are one softmax over all that they see. Backward needs
no gradient of any sum of exponentials: the weight of a key in the whole softmax is exp(score - lse) with the
lse of the whole, so each round's own backward, told the lse and the output of the whole, gives its share.

Neither sorted rows nor masks are kept: both passes sort again, a few lines (b, h) at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from variants.kernels.passes import Whole, attend, attend_backward
from variants.kernels.uncast import without_autocast

# Positions whose sorted rows live at once.
_ROWS = 16_384


@dataclass(frozen=True)
class Rounds:
    """How positions are sorted in each round.

    Attributes:
        order: positions by bucket and then by position, those that are not there last.
        buckets: the bucket of each, in that order; -1 of those that are not there.
        chunk: sorted rows to a chunk.
        causal: a row sees the last `chunk` rows of its bucket before its own. Otherwise it sees the others
            of its bucket in its own chunk and in the one before.
    """

    order: Int[Tensor, "lines rounds N"]
    buckets: Int[Tensor, "lines rounds N"]
    chunk: int
    causal: bool

    @property
    def count(self) -> int:
        """Number of chunks."""
        return -(-self.order.shape[2] // self.chunk)

    def lonely(self) -> Bool[Tensor, "lines rounds N"]:
        """Whether a sorted row sees none: if it sees any, it sees the one before it or the one behind."""
        there = self.buckets[..., 1:] >= 0
        beside = (self.buckets[..., 1:] == self.buckets[..., :-1]) & there
        lonely = torch.ones_like(self.buckets, dtype=torch.bool)
        lonely[..., 1:] &= ~beside
        if not self.causal:
            behind = torch.arange(1, self.order.shape[2], device=beside.device) % self.chunk != 0
            lonely[..., :-1] &= ~(beside & behind)
        return lonely


def sort_by_bucket(
    buckets: Int[Tensor, "lines rounds N"], there: Bool[Tensor, "lines N"] | None, *, chunk: int, causal: bool
) -> Rounds:
    """Sort each round; positions that are not `there` come last, so they move no chunk of the others."""
    if there is not None:
        buckets = buckets.masked_fill(~there[:, None], torch.iinfo(buckets.dtype).max)
    buckets, order = buckets.sort(dim=-1, stable=True)
    if there is not None:
        buckets = buckets.masked_fill(buckets == torch.iinfo(buckets.dtype).max, -1)
    return Rounds(order.int(), buckets, chunk, causal)


def directed(k: Float[Tensor, "*lines N D"]) -> Float[Tensor, "*lines N D"]:
    """The direction k / |k|, and 0 where k is 0: of the least norm that counts, float16 would make 0."""
    precise = torch.promote_types(k.dtype, torch.float32)
    return F.normalize(k.to(precise), dim=-1).to(k.dtype)


def bucket_attention(
    q: Float[Tensor, "lines N D"],
    k: Float[Tensor, "lines N D"],
    v: Float[Tensor, "lines N D"],
    rounds: Rounds,
) -> Float[Tensor, "lines N D"]:
    """One softmax of q . k / sqrt(D) over what each row sees in all rounds, once for each round.

    A position that sees none in any round gets its own value; one that is not there gets 0.
    """
    out = _Buckets.apply(q, k, v, rounds.order, rounds.buckets, rounds.chunk, rounds.causal)
    assert isinstance(out, Tensor)
    return out


class _Buckets(torch.autograd.Function):
    """See `bucket_attention`."""

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, order: Tensor, buckets: Tensor, chunk: int, causal: bool
    ) -> Tensor:
        """Attend round by round, then average in float32 at least, by the sums of exponentials."""
        rounds = Rounds(order, buckets, chunk, causal)
        lines, n, width = q.shape
        precise = torch.promote_types(q.dtype, torch.float32)
        out = torch.empty(lines, n, width, dtype=precise, device=q.device)
        lse = torch.empty(lines, n, dtype=precise, device=q.device)
        alone = torch.empty(lines, n, dtype=torch.bool, device=q.device)
        lonely = rounds.lonely()
        for group in _groups(lines, n):
            packed = torch.cat((q[group], k[group], v[group]), -1).flatten(0, 1)
            outs = packed.new_empty(order.shape[1], len(packed), width)
            sums = packed.new_empty(order.shape[1], len(packed), dtype=precise)
            for number in range(order.shape[1]):
                part = _Round(rounds, group, number, packed, width)
                its, its_lse = part.attend(lonely[group, number])
                outs[number].index_copy_(0, part.rows.long(), its)
                sums[number].index_copy_(0, part.rows.long(), its_lse)
            whole = sums.logsumexp(0)
            none = whole == -torch.inf
            whole = whole.masked_fill_(none, 0.0)
            shares = (sums - whole).exp_()
            mixed = out[group].flatten(0, 1)
            torch.mul(outs[0], shares[0, :, None], out=mixed)
            for its, share in zip(outs[1:], shares[1:], strict=True):
                mixed.addcmul_(its, share[:, None])
            lse[group], alone[group] = whole.unflatten(0, (-1, n)), none.unflatten(0, (-1, n))
        # Those that are not there are last in any order.
        first = torch.zeros_like(alone).scatter_(1, order[:, 0].long(), buckets[:, 0] >= 0)
        alone &= first
        out = torch.where(alone[..., None], v.to(precise), out, out=out).to(q.dtype)
        ctx.save_for_backward(q, k, v, order, buckets, out, lse, alone)
        ctx.chunk, ctx.causal = chunk, causal
        return out

    @staticmethod
    @without_autocast
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it for any function
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Add up the gradients of the rounds."""
        q, k, v, order, buckets, out, lse, alone = ctx.saved_tensors
        rounds = Rounds(order, buckets, ctx.chunk, ctx.causal)
        precise = torch.promote_types(q.dtype, torch.float32)
        width = q.shape[-1]
        found = [torch.zeros(q.shape, dtype=precise, device=q.device) for _ in range(3)]
        for group in _groups(len(q), q.shape[1]):
            packed = torch.cat((q[group], k[group], v[group], grad[group], out[group]), -1).flatten(0, 1)
            totals = [x[group].flatten(0, 1) for x in found]
            for number in range(order.shape[1]):
                part = _Round(rounds, group, number, packed, width)
                for total, share in zip(totals, part.backward(lse[group].flatten()), strict=True):
                    total.index_add_(0, part.rows, share.to(precise))
        own = grad.masked_fill(~alone[..., None], 0.0)
        return (*(x.to(q.dtype) for x in found[:2]), (found[2] + own).to(q.dtype), None, None, None, None)


class _Round:
    """One round of some lines: sorted rows of `packed`, which has q, k, v side by side; and its mask."""

    def __init__(self, rounds: Rounds, group: slice, number: int, packed: Tensor, width: int) -> None:
        order, buckets = rounds.order[group, number], rounds.buckets[group, number]
        lines, n = order.shape
        self.chunk, self.count, self.width = rounds.chunk, rounds.count, width
        tail = self.count * self.chunk - n
        start = torch.arange(lines, device=order.device, dtype=order.dtype)[:, None] * n
        places = F.pad(order, (self.chunk, tail)) + start
        self.rows = (order + start).flatten()
        self.n, self.places = n, places
        self.sorted = packed.index_select(0, places.flatten()).unflatten(0, places.shape)
        self.mask = _mask(buckets, tail, rounds, packed)

    def attend(self, lonely: Bool[Tensor, "lines N"]) -> tuple[Tensor, Tensor]:
        """Outputs and logarithms of sums of exponentials, of the sorted rows; 0 and -inf where lonely."""
        empty = F.pad(lonely, (0, self.count * self.chunk - self.n), value=True)
        empty = empty.unflatten(1, (self.count, self.chunk))[..., None]
        its = self._own(0), self._seen(1), self._seen(2), self.mask
        out, lse = attend(*its, self.width**-0.5, empty=empty)
        return self._leave(out), self._leave(lse)[:, 0]

    def backward(self, lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the sorted rows of q, k and v. Packed behind those are the gradient and the output."""
        q, k, v = self._own(0), self._seen(1), self._seen(2)
        lse = lse.index_select(0, self.places[:, self.chunk :].flatten()).view(*q.shape[:3], 1)
        whole = Whole(self._own(3), self._own(4), lse, self.width**-0.5)
        dq, dk, dv = attend_backward(q, k, v, self.mask, whole)
        return self._leave(dq), self._leave(self._folded(dk)), self._leave(self._folded(dv))

    def _own(self, column: int) -> Float[Tensor, "lines chunks c D"]:
        rows = self.sorted[:, self.chunk :, column * self.width : (column + 1) * self.width]
        return rows.unflatten(1, (self.count, self.chunk))

    def _seen(self, column: int) -> Float[Tensor, "lines chunks stretch D"]:
        """The chunk before and the own one, as overlapping views."""
        rows = self.sorted[..., column * self.width : (column + 1) * self.width]
        return rows.unfold(1, 2 * self.chunk, self.chunk).transpose(-1, -2)

    def _folded(self, grad: Float[Tensor, "lines chunks stretch D"]) -> Float[Tensor, "lines chunks c D"]:
        own = grad[:, :, self.chunk :]
        own[:, :-1] += grad[:, 1:, : self.chunk]
        return own

    def _leave(self, x: Float[Tensor, "lines chunks c X"]) -> Float[Tensor, "rows X"]:
        return x.flatten(1, 2)[:, : self.n].flatten(0, 1)


def _groups(lines: int, n: int) -> Iterator[slice]:
    """Lines that are sorted together."""
    size = max(1, _ROWS // n)
    return (slice(start, start + size) for start in range(0, lines, size))


def _mask(
    buckets: Tensor, tail: int, rounds: Rounds, like: Tensor
) -> Float[Tensor, "lines chunks c stretch"]:
    """0 where a row sees a row of its stretch, else -inf."""
    queries = F.pad(buckets, (0, tail), value=-1).unflatten(1, (rounds.count, rounds.chunk))
    keys = F.pad(buckets.masked_fill(buckets < 0, -2), (rounds.chunk, tail), value=-2)
    keys = keys.unfold(1, 2 * rounds.chunk, rounds.chunk)
    row = torch.arange(rounds.chunk, device=buckets.device)
    ahead = torch.arange(-rounds.chunk, rounds.chunk, device=buckets.device) - row[:, None]
    near = (ahead < 0) & (ahead >= -rounds.chunk) if rounds.causal else ahead != 0
    band = torch.zeros(near.shape, dtype=like.dtype, device=like.device).masked_fill_(~near, -torch.inf)
    return torch.where(queries[..., :, None] != keys[..., None, :], -torch.inf, band)
