"""Identity: no mixing at all, what a network is worth without attention.

    out_i = v_i

No paper; the control of every comparison. Deviation: none.
"""

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from variants.interface import Attention, Caps, Cost, Request
from variants.pattern import Near, Pattern


class Identity(Attention):
    """Each position keeps its own value."""

    caps: ClassVar[Caps] = Caps(
        family="control",
        title="Identity",
        paper="",
        order="N",
        time_exponent=1.0,
        memory_exponent=1.0,
        causal=True,
        cross=False,
        key_mask="exact",
    )

    @property
    def pattern(self) -> Pattern:
        """The diagonal."""
        return Near(0, 0)

    def forward(
        self,
        q: Float[Tensor, "B H N D"],
        k: Float[Tensor, "B H M D"],
        v: Float[Tensor, "B H M D"],
        *,
        key_mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B H N D"]:
        """A copy of v, and 0 at masked keys. q and k get no gradient, being unused."""
        self.refuse_unless_served(q, k, key_mask)
        return v.clone() if key_mask is None else v.masked_fill(~key_mask[:, None, :, None], 0.0)

    def cost(self, request: Request) -> Cost:
        """Nothing but the mask."""
        lines = request.batch * request.heads
        return Cost(
            flops_forward=0,
            flops_backward=0,
            pairs_useful=lines * request.queries,
            pairs_executed=lines * request.queries,
            bytes_saved=request.batch * request.keys if request.key_mask else 0,
            state=0 if self.causal else None,
            reach=0,
            look_ahead=0,
        )
