import pytest
import torch

from variants.blocked.moba import MoBA
from variants.interface import Dims, Request, masked_softmax
from variants.kernels import routed, routes
from variants.kernels.routed import routed_attention
from variants.kernels.routes import Sizes
from variants.pattern import Full


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(*, causal: bool = False, block: int = 8, topk: int = 3) -> MoBA:
    return MoBA(Dims(2, 4, 200), causal=causal, block=block, topk=topk)


def chosen_by_loops(q, k, i: int, block: int, topk: int, *, causal: bool) -> list[int]:
    n, own = len(k), i // block
    starts = range(0, n, block)
    scores = {
        number: float(q[i] @ k[start : start + block].mean(0))
        for number, start in enumerate(starts)
        if number != own and not (causal and number > own)
    }
    best = sorted(scores, key=lambda number: (-scores[number], number))[: topk - 1]
    keys = [j for number in [own, *best] for j in range(number * block, min((number + 1) * block, n))]
    return sorted(j for j in keys if not causal or j <= i)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("block", "topk"), [(8, 3), (5, 2), (7, 6)])
def test_it_is_its_definition(block: int, topk: int, causal: bool) -> None:
    q, k, v = (normal(1, 2, 38, 4, seed=s) for s in range(3))
    attention = build(causal=causal, block=block, topk=topk)
    out, keep = attention(q, k, v), attention.kept(q, k, rows=torch.arange(38))
    for h in range(2):
        for i in range(38):
            keys = chosen_by_loops(q[0, h], k[0, h], i, block, topk, causal=causal)
            assert keep[0, h, i].nonzero()[:, 0].tolist() == keys
            weights = (k[0, h, keys] @ q[0, h, i] / 2.0).softmax(0)
            torch.testing.assert_close(out[0, h, i], weights @ v[0, h, keys], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_with_all_blocks_it_is_softmax_attention(causal: bool) -> None:
    q, k, v = (normal(2, 2, 38, 4, seed=s) for s in range(3))
    softmax = masked_softmax(q, k, Full(causal).dense(38, 38)) @ v
    torch.testing.assert_close(build(causal=causal, topk=5)(q, k, v), softmax)
    assert (build(causal=causal, topk=4)(q, k, v) - softmax).abs().max() > 1e-3


@pytest.mark.parametrize("causal", [False, True])
def test_with_one_block_it_is_local_to_blocks(causal: bool) -> None:
    q, k, v = (normal(2, 2, 38, 4, seed=s) for s in range(3))
    home = torch.arange(38) // 8
    keep = (home[:, None] == home) & Full(causal).dense(38, 38)
    torch.testing.assert_close(build(causal=causal, topk=1)(q, k, v), masked_softmax(q, k, keep) @ v)


def test_means_are_of_the_keys_that_are_there() -> None:
    # Of block 1 only key 8 is there, and it suits best; of block 2 none is, whatever stands there.
    k = torch.zeros(1, 2, 32, 4)
    k[:, :, 8, 0], k[:, :, 9:16, 0], k[:, :, 16:24, 0], k[:, :, 24:, 0] = 3.0, -50.0, 9.0, 2.0
    mask = torch.ones(1, 32, dtype=torch.bool)
    mask[:, 9:24] = False
    q = torch.zeros(1, 2, 32, 4)
    q[..., 0] = 1.0
    keep = build(topk=2).kept(q[:, :, :4], k, rows=torch.arange(4), key_mask=mask)
    assert keep[0, 0, 0].nonzero()[:, 0].tolist() == [*range(8), 8]
    v = torch.arange(32.0)[None, None, :, None].expand(1, 2, 32, 4)
    weights = torch.cat((torch.zeros(8), torch.tensor([1.5]))).softmax(0)
    out = build(topk=2)(q, k, v, key_mask=mask)
    torch.testing.assert_close(out[0, 0, 0, 0], weights @ torch.arange(9.0))


def test_of_equal_scores_the_first_blocks_are_kept() -> None:
    q, k = torch.zeros(1, 2, 40, 4), normal(1, 2, 40, 4, dtype=torch.float32)
    v = torch.arange(40.0)[None, None, :, None].expand(1, 2, 40, 4)
    # Block 4 sees itself, 0 and 1; all weights are equal.
    expected = torch.tensor([*range(16), *range(32, 40)], dtype=torch.float32).mean()
    torch.testing.assert_close(build()(q, k, v)[0, 0, 39, 0], expected)


def test_what_nobody_chose_gets_no_gradient() -> None:
    q, k, v = (normal(1, 2, 64, 4, seed=s).requires_grad_() for s in range(3))
    attention = build(causal=True, block=4, topk=2)
    keep = attention.kept(q, k, rows=torch.arange(64))[:, :, 48:]
    _, dk, dv = torch.autograd.grad(attention(q, k, v)[:, :, 48:].square().sum(), (q, k, v))
    seen = keep.any(2)
    assert not seen.all()
    assert (dk[~seen] == 0).all()
    assert (dv[~seen] == 0).all()
    assert (dv[seen] != 0).all()


def test_bfloat16_chooses_as_its_float64_copy_does() -> None:
    q, k = (normal(1, 2, 200, 4, seed=s).bfloat16() for s in range(2))
    rows = torch.arange(200)
    exact = build().kept(q.double(), k.double(), rows=rows)
    assert torch.equal(build().kept(q, k, rows=rows), exact)
    v = normal(1, 2, 200, 4, seed=2).bfloat16()
    out = build()(q, k, v)
    expected = masked_softmax(q.double(), k.double(), exact) @ v.double()
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.02)


def chosen(n: int, blocks: int, block: int, *, everyone: bool) -> torch.Tensor:
    """Two other blocks of each query: the same ones for all as far as possible, or any; some choose none."""
    generator = torch.Generator().manual_seed(4)
    scores = torch.rand(4, n, blocks, generator=generator)
    if everyone:
        scores = torch.arange(blocks, 0, -1.0).expand(4, n, -1).clone()
    scores[:, torch.arange(n), torch.arange(n) // block] = -1.0
    found = scores.topk(2).indices.int()
    found[:, 3], found[:, 5, 1] = -1, -1
    return found


@pytest.mark.parametrize("everyone", [False, True])
@pytest.mark.parametrize(("rows", "slab"), [(1, 1), (60, 3_000), (1 << 14, 1 << 21)])
@pytest.mark.parametrize("masked", [False, True])
def test_any_slabs_and_any_choice_give_the_same(
    rows: int, slab: int, everyone: bool, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routed, "_ROWS", rows)
    monkeypatch.setitem(routes._SLAB, "cpu", slab)
    q, k, v = (normal(2, 2, 29, 4, seed=s).requires_grad_() for s in range(3))
    which = chosen(29, 5, 6, everyone=everyone)
    mask = torch.arange(29)[None] % torch.tensor([[3], [4]]) > 0 if masked else None
    out = routed_attention(q, k, v, chosen=which, block=6, causal=False, key_mask=mask)
    home = torch.arange(29) // 6
    keep = (which[..., None] == home).any(2).unflatten(0, (2, 2)) | (home[:, None] == home)
    keep = keep if mask is None else keep & mask[:, None, None]
    expected = masked_softmax(q, k, keep) @ v
    torch.testing.assert_close(out, expected)
    above = normal(2, 2, 29, 4, seed=5)
    for one, other in zip(
        torch.autograd.grad(out, (q, k, v), above),
        torch.autograd.grad(expected, (q, k, v), above),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_gradients_are_those_of_differences() -> None:
    q, k, v = (normal(1, 2, 11, 3, seed=s).requires_grad_() for s in range(3))
    which = chosen(11, 4, 3, everyone=False)[:2]

    def attend(*x: torch.Tensor) -> torch.Tensor:
        return routed_attention(*x, chosen=which, block=3, causal=False)

    assert torch.autograd.gradcheck(attend, (q, k, v))


def test_chunks_are_enough_for_the_worst_choice() -> None:
    for n, block, slots in ((29, 6, 2), (64, 8, 3), (7, 3, 1)):
        for causal in (False, True):
            sizes = Sizes(n, block, slots, causal)
            # One pair too many in every block that can be chosen, the rest in one.
            targets = sizes.blocks - 1 if causal else sizes.blocks
            alone = min(targets - 1, sizes.pairs)
            worst = alone + -(-(sizes.pairs - alone) // sizes.chunk)
            assert worst <= sizes.chunks
            assert sizes.chunks * sizes.chunk < sizes.pairs + targets * sizes.chunk


def test_cost_does_not_depend_on_who_chose_what_and_counts_what_is_kept() -> None:
    attention = build(causal=True)
    q, k = (normal(1, 2, 64, 4, seed=s) for s in range(2))
    cost = attention.cost(Request(1, 2, 64, 64, 4))
    assert cost.pairs_useful == int(attention.kept(q, k, rows=torch.arange(64)).sum())


def test_no_square_is_ever_there() -> None:
    from torch.profiler import ProfilerActivity, profile

    n = 4096
    q, k, v = (normal(1, 1, n, 8, dtype=torch.float32, seed=s).requires_grad_() for s in range(3))
    attention = MoBA(Dims(1, 8, n), causal=True, block=64, topk=3)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        attention(q, k, v).sum().backward()
    events = trace.profiler.kineto_results.events()
    assert max(event.nbytes() for event in events if event.name() == "[memory]") < n * n // 4


@pytest.mark.parametrize("options", [{"block": 0}, {"topk": 0}])
def test_a_size_below_one_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1, not "):
        build(**options)


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_the_same_without_the_fused_kernel(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, above = (normal(2, 2, 38, 4, seed=s).requires_grad_() for s in range(4))
    mask = torch.arange(38)[None] % torch.tensor([[3], [4]]) > 0
    for key_mask in (None, mask):
        outs = list[tuple[torch.Tensor, ...]]()
        for device in ("cpu", "elsewhere"):
            monkeypatch.setattr("variants.kernels.passes._FUSED_ON", device)
            out = build(causal=causal)(q, k, v, key_mask=key_mask)
            outs.append((out, *torch.autograd.grad(out, (q, k, v), above)))
        for one, other in zip(*outs, strict=True):
            torch.testing.assert_close(one, other)
