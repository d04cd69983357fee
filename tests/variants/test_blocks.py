from collections.abc import Iterator

import pytest
import torch
import torch.utils.deterministic
from torch.profiler import ProfilerActivity, profile

from variants.blocked.block_sparse import BlockSparse, Layout
from variants.interface import Dims, masked_softmax
from variants.kernels.blocks import block_attention
from variants.kernels.lists import Lists
from variants.kernels.lists import block_lists as lists_of
from variants.sparse.bigbird import BigBird

N = 4096


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def peak(trace: profile) -> int:
    """The largest piece of memory that was asked for."""
    events = trace.profiler.kineto_results.events()
    return max(event.nbytes() for event in events if event.name() == "[memory]")


def block_lists(layout: torch.Tensor, block: int, *, causal: bool) -> Lists:
    """The lists of a layout: True where query block i sees key block j."""
    return lists_of(torch.where(layout, torch.arange(layout.shape[-1]), -1), block, causal=causal)


def random_layout(lines: int, blocks: int, *, hole: bool = True) -> torch.Tensor:
    """Rows of several lengths: one that sees all, one without its own block, and one that sees nothing."""
    layout = torch.rand(lines, blocks, blocks, generator=torch.Generator().manual_seed(3)) < 0.4
    layout[:, blocks // 2] = True
    layout[:, blocks - 1] = not hole
    if blocks > 2:
        layout[:, 1, 0], layout[:, 1, 1] = True, False
    return layout


def dense(layout: torch.Tensor, block: int, n: int, *, causal: bool) -> torch.Tensor:
    keep = layout.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :n, :n]
    return (keep.tril() if causal else keep).repeat(4 // len(layout), 1, 1).view(2, 2, n, n)


@pytest.fixture
def dirty() -> Iterator[None]:
    """Fresh memory is full of NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("dirty")
@pytest.mark.parametrize("slab", [1, 2**22])
@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lines", [1, 2, 4])
@pytest.mark.parametrize(("n", "block"), [(97, 8), (64, 8), (7, 8), (33, 4), (5, 1)])
def test_any_layout_is_softmax_over_what_it_keeps(
    n: int,
    block: int,
    lines: int,
    causal: bool,
    masked: bool,
    hole: bool,
    slab: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("variants.kernels.blocks._SLAB", {"cpu": slab})
    layout = random_layout(lines, -(-n // block), hole=hole)
    q, k, v = (normal(2, 2, n, 4, seed=s).requires_grad_() for s in range(3))
    mask = torch.rand(2, n, generator=torch.Generator().manual_seed(4)) < 0.5 if masked else None
    keep = dense(layout, block, n, causal=causal)
    keep = keep if mask is None else keep & mask[:, None, None]
    expected = masked_softmax(q, k, keep) @ v
    found = block_attention(q, k, v, lists=block_lists(layout, block, causal=causal), key_mask=mask)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    upstream = normal(2, 2, n, 4, seed=5)
    for one, other in zip(
        torch.autograd.grad(found, (q, k, v), upstream),
        torch.autograd.grad(expected, (q, k, v), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_gradients_are_those_of_differences() -> None:
    q, k, v = (normal(1, 1, 7, 2, seed=s).requires_grad_() for s in range(3))
    mask = torch.tensor([[True, False, True, True, False, False, True]])
    lists = block_lists(random_layout(1, 3), 3, causal=False)
    assert torch.autograd.gradcheck(lambda *x: block_attention(*x, lists=lists, key_mask=mask), (q, k, v))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [33, 40])
def test_pairs_are_those_kept(n: int, causal: bool) -> None:
    layout = random_layout(2, 5)
    kept = int(dense(layout, 8, n, causal=causal)[0].sum())
    assert block_lists(layout, 8, causal=causal).pairs(n) == kept


def test_half_gradients_add_up_in_float32() -> None:
    # Key block 0 hears from 600 blocks; bfloat16 would stop counting at 256.
    layout = torch.eye(600, dtype=torch.bool)
    layout[:, 0] = True
    k = torch.zeros(1, 1, 600, 8, dtype=torch.bfloat16)
    v = torch.zeros_like(k).requires_grad_()
    block_attention(k, k, v, lists=block_lists(layout[None], 1, causal=False)).sum().backward()
    assert v.grad is not None
    assert float(v.grad[0, 0, 0, 0]) == pytest.approx(1 + 599 / 2, rel=0.01)


@pytest.mark.parametrize("causal", [False, True])
def test_nothing_is_as_large_as_the_square(causal: bool) -> None:
    attention = BlockSparse(Dims(1, 8, N), causal=causal, block=32, layout="band", stride=2)
    q, k, v = (normal(1, 1, N, 8, dtype=torch.float32, seed=s).requires_grad_() for s in range(3))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        attention(q, k, v).sum().backward()
    assert peak(trace) < N * N / 4


def test_numbers_of_short_blocks_are_not_there_all_at_once() -> None:
    # Blocks of 4 positions of 8 numbers, each of which sees about 64: the numbers are four times as many.
    lists = Layout("strided", 4, 16, 0, False).lists(256, torch.device("cpu"))
    q, k, v = (normal(8, 8, 1024, 8, dtype=torch.float32, seed=s) for s in range(3))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        block_attention(q, k, v, lists=lists)
    assert peak(trace) <= 2**22


def oracle(name: str, i: int, j: int, stride: int) -> bool:
    if name == "band":
        return j in range(i - stride + 1, i + stride)
    if name == "butterfly":
        return j in {i, *(i ^ 2**digit for digit in range(10))}
    if name == "strided":
        return j in {*range(i - stride + 1, i + stride), *range(i % stride, 100, stride)}
    return i // stride == j // stride or j in range(stride - 1, 100, stride)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("firsts", [0, 2])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("name", ["band", "butterfly", "strided", "fixed"])
def test_layout_is_its_definition(name, stride: int, firsts: int, causal: bool) -> None:
    n, block = 23, 2
    expected = [
        [
            (oracle(name, i // block, j // block, stride) or min(i, j) // block < firsts)
            and not (causal and j > i)
            for j in range(n)
        ]
        for i in range(n)
    ]
    assert Layout(name, block, stride, firsts, causal).dense(n, n).tolist() == expected


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("firsts", [0, 2, 30])
@pytest.mark.parametrize("stride", [1, 3, 30])
@pytest.mark.parametrize("name", ["band", "butterfly", "strided", "fixed"])
@pytest.mark.parametrize("blocks", [1, 2, 12, 23])
def test_lists_are_those_of_the_layout(name, stride: int, firsts: int, causal: bool, blocks: int) -> None:
    layout = Layout(name, 2, stride, firsts, causal)
    # The last query of a block and the first key of one: causal or not, whole blocks.
    at = 2 * torch.arange(blocks)
    found = layout.lists(blocks, torch.device("cpu"))
    expected = block_lists(layout.keep(at[:, None] + 1, at, 2 * blocks)[None], 2, causal=causal)
    assert found.wide.equal(expected.wide)
    assert found.keys.equal(expected.keys)


@pytest.mark.parametrize("layout", ["band", "butterfly"])
def test_lists_are_made_without_a_square(layout) -> None:
    attention = BlockSparse(Dims(1, 8, 8 * 4096), block=8, layout=layout)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        attention.lists(4096, None, torch.device("cpu"))
    assert peak(trace) < 4096 * 512


def test_lists_and_their_groups_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attentions = [BlockSparse(Dims(2, 8, 64), block=4), BigBird(Dims(2, 8, 64), block=4, global_blocks=1)]
    q, k, v = (normal(1, 2, 64, 8, seed=s) for s in range(3))
    before = [attention(q, k, v) for attention in attentions]
    for name in ("unique", "nonzero", "sort"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name, **__: pytest.fail(name))
    for attention, out in zip(attentions, before, strict=True):
        assert attention(q.repeat(3, 1, 1, 1), *(x.repeat(3, 1, 1, 1) for x in (k, v)))[:1].equal(out)


def test_few_lists_are_kept() -> None:
    attention = BlockSparse(Dims(1, 8, 64), block=2)
    for blocks in range(4, 30):
        attention.lists(blocks, None, torch.device("cpu"))
    assert len(attention.made) <= 4


@pytest.mark.parametrize("options", [{"block": 0}, {"stride": 0}, {"global_blocks": -1}, {"layout": "x"}])
def test_wrong_options_are_named(options) -> None:
    # The type checker that tests run under is the first to see a wrong name.
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        BlockSparse(Dims(1, 4, 8), **options)
