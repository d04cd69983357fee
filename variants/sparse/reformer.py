"""Reformer: a query sees the keys that a random hash puts into its bucket.

    out_i = sum_r sum_j exp(s_ij) v_j / sum_r sum_j exp(s_ij),  j in S_r(i),  s_ij = k_i . k_j / |k_j| sqrt(D)

with S_r(i) the others of i's bucket in its chunk and the chunk before, positions being sorted by bucket in
round r. Kitaev, Kaiser and Levskaya 2020, section 2, https://arxiv.org/abs/2001.04451. Deviations: keys are
the queries too, so q plays no part; a pair of two rounds counts twice; a key sees itself only if no round
gives it another; hashes stay as drawn, and past 64 buckets are pairs of hashes, as in the authors' code. With
causal, S_r(i) is the last `bucket` of its bucket before i: where chunks end depends on the future.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from variants.bounds import LARGEST, MOST_ROUNDS, check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.directions import even, factors, hash_by_direction
from variants.kernels.fused import fused_cost
from variants.kernels.gather import without_masked
from variants.kernels.hashing import bucket_attention, directed, sort_by_bucket


class Reformer(Attention):
    """Attention in hashed buckets; queries and keys are one."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="Reformer (LSH attention)",
        paper="https://arxiv.org/abs/2001.04451",
        order="N hashes (2 bucket + log N + D sqrt(buckets)); by default buckets = max_len / bucket",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"bucket": 16, "hashes": 4, "buckets": 8},
        {"bucket": 16, "hashes": 4, "buckets": 100},
    )

    def __init__(
        self, dims: Dims, *, causal: bool = False, bucket: int = 64, hashes: int = 4, buckets: int = 0
    ) -> None:
        """Draw the random directions.

        Sequences are sorted into an even number of `buckets`, in `hashes` rounds, and cut into chunks of
        `bucket` positions. By default there are as many buckets as chunks at max_len.

        Raises:
            ValueError: an option is out of bounds, or buckets is odd.
        """
        super().__init__(dims, causal=causal)
        check_range(1, bucket=bucket)
        check_range(1, MOST_ROUNDS, hashes=hashes)
        check_range(0, LARGEST, 2, buckets=buckets)
        self.bucket, self.hashes = bucket, hashes
        self.factors = factors(buckets or even(dims.max_len / bucket))
        shape = (dims.head_dim, hashes * sum(self.factors) // 2)
        self.directions = nn.Buffer(torch.randn(shape, generator=dims.generator()))

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Hash, sort, attend. Masked keys are in no bucket."""
        self.refuse_unless_served(q, k, key_mask)
        k, v = without_masked(k, v, key_mask)
        there = None if key_mask is None else key_mask.repeat_interleave(k.shape[1], 0)
        x = k.flatten(0, 1)
        with torch.no_grad():
            buckets = hash_by_direction(x, self.directions, self.factors, self.hashes)
            rounds = sort_by_bucket(buckets, there, chunk=min(self.bucket, k.shape[2]), causal=self.causal)
        out = bucket_attention(x, directed(x), v.flatten(0, 1), rounds)
        return out.unflatten(0, k.shape[:2])

    def weights(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H R M"]:
        """Exponentials of the scores, times how many rounds see the pair."""
        del q
        times = self._times(k, rows, key_mask)
        scores = k[:, :, rows] @ directed(k).transpose(-1, -2) * k.shape[-1] ** -0.5
        scores = (scores + times.to(k.dtype).log()).masked_fill(times == 0, torch.finfo(k.dtype).min)
        return scores.softmax(-1) * (times > 0)

    def kept(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Bool[Tensor, "B H R M"]:
        """What any round sees, or else the position itself; none for a masked position."""
        del q
        return self._times(k, rows, key_mask) > 0

    def _times(self, k: Tensor, rows: Tensor, key_mask: Tensor | None) -> Int[Tensor, "B H R M"]:
        """In how many rounds each row sees each key."""
        m, position = k.shape[2], torch.arange(k.shape[2], device=k.device)
        there = torch.ones_like(position, dtype=torch.bool) if key_mask is None else key_mask[:, None]
        times = torch.zeros(1, dtype=torch.int64, device=k.device)
        for buckets in hash_by_direction(k, self.directions, self.factors, self.hashes).unbind(2):
            place = torch.where(there, buckets, sum(self.factors) ** 2) * m + position
            rank = place.argsort(-1).argsort(-1)
            own, rank_own = buckets[:, :, rows, None], rank[:, :, rows, None]
            if self.causal:
                back = rank_own - rank[:, :, None]
                near = (back > 0) & (back <= self.bucket)
            else:
                back = rank_own // self.bucket - rank[:, :, None] // self.bucket
                near = ((back == 0) | (back == 1)) & (rows[:, None] != position)
            times = times + (near & (own == buckets[:, :, None]) & there[..., None, :])
        alone = (times == 0).all(-1, keepdim=True) & (rows[:, None] == position)
        return (times + alone) * there[..., rows, None]

    def cost(self, request: Request) -> Cost:
        """Products with directions, fused passes over chunks; carried are the last keys of each bucket."""
        lines, n, width = request.batch * request.heads, request.queries, request.head_dim
        bucket, size = min(self.bucket, n), request.dtype.itemsize
        most = self.hashes * torch.Size(self.factors).numel() * bucket
        pairs = 2 * lines * self.hashes * -(-n // bucket) * bucket**2
        fused = fused_cost(pairs=pairs, rows=lines * n, width=width, itemsize=size)
        # Directions, masked copies, and of half types k and its directions in float32 too.
        kept = lines * n * width * (size * (3 if request.key_mask else 1) + (8 if size < 4 else 0))
        # Lists of positions and buckets in each round, norms, and which positions are alone.
        lists = lines * n * (8 * self.hashes + 1 + max(size, 4))
        return Cost(
            flops_forward=fused.flops_forward + 2 * lines * n * width * self.directions.shape[1],
            flops_backward=fused.flops_backward,
            pairs_useful=pairs // 2,
            pairs_executed=pairs,
            bytes_saved=fused.bytes_result + kept + lists,
            state=2 * request.heads * width * min(most, n) if self.causal else None,
            look_ahead=0 if self.causal else None,
        )
