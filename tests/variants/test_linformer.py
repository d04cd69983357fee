import pytest
import torch
from torch.profiler import ProfilerActivity, profile

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


@pytest.mark.parametrize("beside", [False, True])
def test_the_gradient_of_a_shared_projection_is_not_made_for_each_example(beside: bool) -> None:
    rank, n = 32, 256
    linformer = Linformer(Dims(heads=4, head_dim=4, max_len=n), rank=rank)
    q, k, v = (torch.randn(8, n, 4, 4).transpose(1, 2) for _ in range(3))
    x = [one if beside else one.contiguous() for one in (q, k, v)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        linformer(*(one.requires_grad_() for one in x)).sum().backward()
    events = trace.profiler.kineto_results.events()
    most = max(event.nbytes() for event in events if event.name() == "[memory]")
    assert most < 4 * 8 * rank * n
    assert most <= 4 * x[0].numel()


def test_autocast_trains_a_projection() -> None:
    linformer = Linformer(Dims(heads=2, head_dim=4, max_len=16), rank=4)
    x = [torch.randn(2, 2, 16, 4, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linformer(*x).float().sum()
    loss.backward()
    assert linformer.e.grad is not None
    assert linformer.e.grad.dtype == torch.float32
