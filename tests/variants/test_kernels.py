import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from variants.catalogue import build, find
from variants.interface import Dims
from variants.kernels.fused import fold_key_mask
from variants.kernels.linear import kernelized_attention
from variants.kernels.tiling import Tiling, regions, tile
from variants.kernels.windows import window_attention
from variants.pattern import Near

N = 4096
LINEAR = {
    "window": {"left": 16, "right": 16},
    "longformer": {"window": 16, "global_positions": 2},
    "block_local": {"block": 32, "back": 1, "forward": 1},
    "dilated_window": {"window": 16, "dilation": 2},
    "chunked": {"chunk": 16, "left_chunks": 1, "right": 4},
    "bigbird": {"block": 16},
    "shifted_window": {"columns": 64, "window": 8, "shift": 4},
    "hierarchical": {"block": 16},
    "linear": {},
    "performer": {"features": 16},
    "hedgehog": {},
    "cosformer": {},
    "nystromformer": {"landmarks": 16},
    "routing": {"clusters": 64, "window": 64},
    "linformer": {"rank": 16},
    "mean": {},
    "identity": {},
}


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def largest_allocation(act) -> int:
    """Bytes of the largest single allocation while `act` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        act()
    events = trace.profiler.kineto_results.events()
    return max(event.nbytes() for event in events if event.name() == "[memory]")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_nothing_is_as_large_as_the_square(name: str, causal: bool, masked: bool) -> None:
    if causal and not find(name).caps.causal:
        pytest.skip("no causal form")
    attention = build(find(name), Dims(1, 8, N), causal=causal, options=LINEAR[name])
    q, k, v = (normal(1, 1, N, 8, dtype=torch.float32, seed=s).requires_grad_() for s in range(3))
    mask = torch.arange(N)[None, :] < N - 5 if masked else None
    # One byte a pair, a mask say, is N * N; the largest that is due is some dozen floats a position.
    assert largest_allocation(lambda: attention(q, k, v, key_mask=mask).sum().backward()) < N * N / 4


def test_the_largest_allocation_is_seen() -> None:
    assert largest_allocation(lambda: torch.zeros(N, N, dtype=torch.uint8)) >= N * N


def test_windows_are_views() -> None:
    # Copies of the stretches would hold stretch / chunk times the keys.
    held = list[int]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor.untyped_storage().nbytes())
        return tensor

    q, k, v = (normal(1, 2, 1024, 8, seed=s).requires_grad_() for s in range(3))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tiling = Tiling(chunk=32, before=64, after=64)
        window_attention(q, k, v, pattern=Near(64, 64), tiling=tiling)
    assert max(held) == 2 * 1024 * 8 * 8


@pytest.mark.parametrize("n", [1, 5, 12, 13, 24, 31])
@pytest.mark.parametrize("firsts", [0, 1, 3])
@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_any_tiling_gives_the_same(n: int, firsts: int, chunk: int) -> None:
    firsts = min(firsts, n)
    q, k, v = (normal(2, 2, n, 4, seed=s) for s in range(3))
    tiling = Tiling(chunk=chunk, before=2, after=1)
    found = window_attention(q, k, v, pattern=Near(2, 1), tiling=tiling, firsts=firsts)
    keep = Near(2, 1).dense(n, n) | (torch.arange(n) < firsts)
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~keep, -torch.inf)
    torch.testing.assert_close(found, scores.softmax(-1) @ v, rtol=1e-10, atol=1e-12)


def test_window_gradients_are_those_of_differences() -> None:
    q, k, v = (normal(1, 1, 7, 2, seed=s).requires_grad_() for s in range(3))
    tiling = Tiling(chunk=3, before=2, after=1)
    mask = torch.tensor([[True, False, True, True, False, False, True]])

    def attend(*x: torch.Tensor) -> torch.Tensor:
        return window_attention(*x, pattern=Near(2, 1), tiling=tiling, firsts=1, key_mask=mask)

    assert torch.autograd.gradcheck(attend, (q, k, v))


@pytest.mark.parametrize("n", [1, 64, 100, 4096])
@pytest.mark.parametrize("firsts", [0, 1, 40])
@pytest.mark.parametrize(
    ("before", "after", "multiple"),
    [(0, 0, 1), (3, 0, 1), (128, 128, 1), (60, 30, 30), (0, 0, 1000), (900, 900, 300)],
)
def test_regions_cover_the_sequence_once(n: int, firsts: int, before: int, after: int, multiple: int) -> None:
    tiling = tile(before=before, after=after, multiple=multiple)
    assert tiling.chunk % multiple == 0
    seen = [0] * n
    for region in regions(n, tiling, firsts):
        for piece in range(region.pieces):
            first, key = (x + piece * region.step for x in (region.first, region.key))
            for query in range(first, first + region.rows):
                seen[query] += 1
            # The stretch holds all that its first and its last query may see.
            last = first + region.rows - 1
            assert 0 <= key <= max(first // multiple * multiple - before, 0)
            assert n >= key + region.keys >= min((last // multiple + 1) * multiple + after, n)
            assert region.pieces == 1 or key >= firsts
        assert region.rows <= 128
    assert seen == [1] * n


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_folded_key_has_weight_0_whatever_the_scores(dtype: torch.dtype) -> None:
    # Scores of -40 for every kept key: a fixed penalty might not lie below them, this one must.
    q, k = torch.full((1, 1, 1, 4), -4.0, dtype=dtype), torch.full((1, 1, 3, 4), 5.0, dtype=dtype)
    v = torch.tensor([1.0, 1.0, 100.0], dtype=dtype)[None, None, :, None].expand(1, 1, 3, 4)
    q, k, v = fold_key_mask(q, k, v, torch.tensor([[True, True, False]]))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5)
    assert out[..., :4].eq(1.0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_query_is_too_long_to_have_no_keys(dtype: torch.dtype) -> None:
    q = torch.full((1, 1, 2, 4), 1e30, dtype=dtype)
    k, v = torch.ones(1, 1, 3, 4, dtype=dtype), torch.ones(1, 1, 3, 4, dtype=dtype)
    q, k, v = fold_key_mask(q, k, v, torch.zeros(1, 3, dtype=torch.bool))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5)
    assert out.eq(0.0).all()


def test_a_folded_key_has_weight_0_where_scores_are_more_than_half_types_hold() -> None:
    # Two kept keys of score -40,000 and one masked one, in float16.
    q, k = torch.full((1, 1, 1, 64), 25.0).half(), torch.full((1, 1, 3, 64), -25.0).half()
    v = torch.tensor([1.0, 1.0, 100.0])[None, None, :, None].expand(1, 1, 3, 64).half()
    q, k, v = fold_key_mask(q, k, v, torch.tensor([[True, True, False]]))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.125)
    assert out[..., :64].eq(1.0).all()


@pytest.mark.parametrize("n", [1, 63, 64, 65, 128, 200])
def test_causal_chunks_equal_the_recurrence(n: int) -> None:
    phi_q, phi_k, v = normal(1, 2, n, 3).abs(), normal(1, 2, n, 3, seed=1).abs(), normal(1, 2, n, 4, seed=2)
    state, total, rows = torch.zeros(1, 2, 3, 4).double(), torch.zeros(1, 2, 3).double(), list[torch.Tensor]()
    for i in range(n):
        state = state + phi_k[:, :, i, :, None] * v[:, :, i, None, :]
        total = total + phi_k[:, :, i]
        below = (phi_q[:, :, i] * total).sum(-1, keepdim=True)
        rows.append((phi_q[:, :, i, None, :] @ state)[:, :, 0] / below)
    found = kernelized_attention(phi_q, phi_k, v, causal=True)
    torch.testing.assert_close(found, torch.stack(rows, 2), rtol=1e-10, atol=1e-12)


def test_half_types_are_summed_in_float32() -> None:
    # 4,096 ones in bfloat16 add up to 256 and stay there.
    ones = torch.ones(1, 1, N, 1, dtype=torch.bfloat16)
    for causal in (False, True):
        out = kernelized_attention(ones, ones, ones, causal=causal)
        assert out.dtype == torch.bfloat16
        assert out.eq(1.0).all()
