import pytest
import torch

from variants.interface import Dims
from variants.low_rank.linformer import Linformer, Sharing


@pytest.mark.parametrize("sharing", ["none", "heads", "kv"])
def test_any_layout_in_memory_gives_the_same(sharing: Sharing) -> None:
    linformer = Linformer(Dims(heads=3, head_dim=4, max_len=20), rank=5, sharing=sharing).double()
    generator = torch.Generator().manual_seed(0)
    # As projections leave them: heads side by side.
    beside = [torch.randn(2, 17, 3, 4, generator=generator).double().transpose(1, 2) for _ in range(3)]
    apart = [x.contiguous() for x in beside]
    found = list[tuple[torch.Tensor, ...]]()
    for layout in (beside, apart):
        x = [one.detach().requires_grad_() for one in layout]
        out = linformer(*x)
        parameters = list(linformer.parameters())
        found.append((out, *torch.autograd.grad(out.square().sum(), [*x, *parameters])))
    torch.testing.assert_close(found[0], found[1])
