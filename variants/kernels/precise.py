"""Parameters that a conversion to a half type must not round."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Precise(nn.Module):
    """A module whose own parameters stay in float32 at least; its children are converted as usual."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What `to`, `half` and all moves go through."""

        def precisely(old: Tensor) -> Tensor:
            new = fn(old)
            precise = torch.promote_types(new.dtype, torch.float32)
            return new if new.dtype == precise else old.to(new.device, precise)

        super()._apply(precisely, recurse=False)
        if recurse:
            for child in self.children():
                child._apply(fn)
        return self
