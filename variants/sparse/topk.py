"""Top-k attention: every query sees the keys that score highest, and no others.

    out_i = sum_j A_ij v_j,  A = softmax of q_i . k_j / sqrt(D) over the `keys` largest scores of row i

Zhao et al. 2019, section 2, https://arxiv.org/abs/1912.11637; by chunks of queries as in Gupta et al. 2021,
section 2, https://arxiv.org/abs/2106.06899. All scores are computed, only memory is linear. Deviation: of
equal scores the first keys are kept, so a row never keeps more than `keys`.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from variants.bounds import check_range
from variants.interface import Attention, Caps, Cost, Dims, Request
from variants.kernels.gather import copied_bytes, gather_attention, largest, without_masked
from variants.kernels.uncast import without_autocast
from variants.pattern import Full

# Queries whose scores live at once: as many as a usual head is wide, so they take as much room as k does.
_ROWS = 64


class TopK(Attention):
    """Softmax attention to the best keys."""

    caps: ClassVar[Caps] = Caps(
        family="sparse",
        title="Explicit Sparse Transformer (top-k)",
        paper="https://arxiv.org/abs/1912.11637",
        order="N M D for the scores, N keys for the rest",
        time_exponent=2.0,
        memory_exponent=1.0,
        causal=True,
        cross=True,
        key_mask="exact",
        exact_when="keys >= M",
    )
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = ({"keys": 48}, {"keys": 64})

    def __init__(self, dims: Dims, *, causal: bool = False, keys: int = 32) -> None:
        """Keep `keys` keys a query; with causal, of those up to its own position.

        Raises:
            ValueError: keys is out of bounds.
        """
        super().__init__(dims, causal=causal)
        check_range(1, keys=keys)
        self.keys = keys

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """Choose by chunks of queries, then attend to what was chosen."""
        self.refuse_unless_served(q, k, key_mask)
        k, v = without_masked(k, v, key_mask)
        lines, m = q.shape[0] * q.shape[1], k.shape[2]
        with torch.no_grad():
            index, keep = self._choose(q, k, key_mask)
            index += torch.arange(lines, dtype=torch.int32, device=q.device).view(*q.shape[:2], 1, 1) * m
        return gather_attention(q, k, v, index=index.flatten(0, 2), keep=keep.flatten(0, 2))

    @without_autocast
    def _choose(
        self, q: Tensor, k: Tensor, key_mask: Tensor | None
    ) -> tuple[Int[Tensor, "B H N keys"], Bool[Tensor, "B H N keys"]]:
        """The keys of every query, and which of them exist."""
        precise = torch.promote_types(q.dtype, torch.float32)
        columns = k.to(precise).transpose(-1, -2)
        shape = (*q.shape[:3], min(self.keys, k.shape[2]))
        index = torch.zeros(shape, dtype=torch.int32, device=q.device)
        keep = torch.zeros(shape, dtype=torch.bool, device=q.device)
        for start in range(0, q.shape[2], _ROWS):
            rows = slice(start, min(start + _ROWS, q.shape[2]))
            scores = q[:, :, rows].to(precise) @ columns[..., : self._seen(rows.stop, k.shape[2])]
            seen = scores.shape[-1]
            if key_mask is not None:
                scores.masked_fill_(~key_mask[:, None, None, :seen], -torch.inf)
            if self.causal:
                position = torch.arange(seen, device=q.device)
                late = position > position[start:, None]
                scores.masked_fill_(late, -torch.inf)
            values, chosen = largest(scores, min(self.keys, seen))
            index[:, :, rows, : chosen.shape[-1]] = chosen.int()
            keep[:, :, rows, : chosen.shape[-1]] = values > -torch.inf
        return index, keep

    def kept(
        self,
        q: Float[Tensor, "B H R D"],
        k: Float[Tensor, "B H M D"],
        *,
        rows: Int[Tensor, " R"],
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Bool[Tensor, "B H R M"]:
        """The first `keys` keys in the order of falling scores, of those that the query may see.

        In float64 it may settle a near tie otherwise than `forward` does in float32.
        """
        precise = torch.promote_types(q.dtype, torch.float32)
        m = k.shape[2]
        seen = Full(self.causal).keep(rows[:, None], torch.arange(m, device=rows.device), m).to(q.device)
        seen = seen if key_mask is None else seen & key_mask[:, None, None, :]
        scores = (q.to(precise) @ k.to(precise).transpose(-1, -2)).masked_fill(~seen, -torch.inf)
        order = scores.sort(dim=-1, descending=True, stable=True).indices[..., : self.keys]
        return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, True) & seen

    def cost(self, request: Request) -> Cost:
        """All scores once, to choose; the chosen ones once more, and their values in backward."""
        lines, width = request.batch * request.heads, request.head_dim
        count = min(self.keys, request.keys)
        chosen = lines * request.queries * count
        ends = (min(start + _ROWS, request.queries) for start in range(0, request.queries, _ROWS))
        sizes = ((end - (end - 1) // _ROWS * _ROWS, self._seen(end, request.keys)) for end in ends)
        executed = lines * sum(rows * seen for rows, seen in sizes)
        precise = max(request.dtype.itemsize, 4)
        useful = chosen - lines * count * (count - 1) // 2 if self.causal else chosen
        return Cost(
            flops_forward=2 * (executed + chosen) * width,
            flops_backward=2 * chosen * width,
            pairs_useful=useful,
            pairs_executed=executed,
            bytes_saved=chosen * (4 + 2 + 2 * precise) + copied_bytes(request),
            state=2 * request.heads * width * request.keys if self.causal else None,
            reach=None,
            look_ahead=0 if self.causal else None,
        )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Attention:
        """As many keys as the longest sequence has."""
        return cls(dims, causal=causal, keys=dims.max_len)

    def _seen(self, stop: int, keys: int) -> int:
        """Keys that the queries before `stop` may see."""
        return min(stop, keys) if self.causal else keys
