import pytest
import torch
from torch import Tensor

from variants.interface import Dims, masked_softmax
from variants.kernels.selected import compressed_attention
from variants.pattern import Full
from variants.sparse.nsa import NSA
from variants.truncated.window import Window


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(*, causal: bool, block: int = 4, topk: int = 2, window: int = 3) -> NSA:
    return NSA(Dims(2, 4, 200), causal=causal, block=block, topk=topk, window=window).double()


def only(branch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def gates(self: NSA, q: Tensor) -> Tensor:
        del self
        return torch.eye(3, dtype=q.dtype)[branch].expand(*q.shape[:3], 3)

    monkeypatch.setattr(NSA, "gates", gates)


def average(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (keys @ q / len(q) ** 0.5).softmax(0) @ values if len(keys) else torch.zeros_like(q)


def by_loops(attention: NSA, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    out, size, n = torch.zeros_like(q), attention.block, q.shape[2]
    topk, window, causal = attention.selected.topk, attention.near.near.left, attention.causal
    for b in range(q.shape[0]):
        there = [j for j in range(n) if key_mask[b, j]]
        groups = {c: [j for j in there if j // size == c] for c in range(-(-n // size))}
        filled = [c for c, members in groups.items() if members]
        for h in range(q.shape[1]):
            keys, values = k[b, h], v[b, h]
            means = {c: (keys[groups[c]].mean(0), values[groups[c]].mean(0)) for c in filled}
            for i in range(n):
                x, own = q[b, h, i], i // size
                seen = [c for c in filled if c < own] if causal else filled
                coarse = torch.zeros_like(x)
                if seen:
                    coarse = average(x, *(torch.stack([means[c][s] for c in seen]) for s in (0, 1)))
                rest = sorted((c for c in seen if c != own), key=lambda c, x=x: -float(x @ means[c][0]))
                chosen = {own, *rest[: topk - 1]}
                fine = [j for j in there if j // size in chosen and (j <= i or not causal)]
                near = [j for j in there if abs(i - j) <= window and (j <= i or not causal)]
                gate = (x @ attention.gate[h]).sigmoid()
                parts = (coarse, *(average(x, keys[s], values[s]) for s in (fine, near)))
                out[b, h, i] = sum(g * part for g, part in zip(gate, parts, strict=True))
    return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("block", "topk", "n"), [(4, 3, 30), (5, 1, 30), (16, 2, 13)])
def test_it_is_its_definition(block: int, topk: int, n: int, causal: bool, masked: bool) -> None:
    q, k, v = (normal(2, 2, n, 4, seed=s) for s in range(3))
    mask = normal(2, n, seed=3) > 0 if masked else torch.ones(2, n, dtype=torch.bool)
    mask[0, block : 2 * block] = not masked  # A block without keys.
    attention = build(causal=causal, block=block, topk=topk)
    out = attention(q, k, v, key_mask=mask if masked else None)
    torch.testing.assert_close(out, by_loops(attention, q, k, v, mask), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_the_third_branch_is_the_window(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    only(2, monkeypatch)
    q, k, v = (normal(1, 2, 40, 4, seed=s) for s in range(3))
    window = Window(Dims(2, 4, 200), causal=causal, left=3, right=3)
    torch.testing.assert_close(build(causal=causal)(q, k, v), window(q, k, v))


@pytest.mark.parametrize("causal", [False, True])
def test_the_second_branch_with_all_blocks_is_softmax(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    only(1, monkeypatch)
    q, k, v = (normal(1, 2, 40, 4, seed=s) for s in range(3))
    softmax = masked_softmax(q, k, Full(causal).dense(40, 40)) @ v
    torch.testing.assert_close(build(causal=causal, topk=10)(q, k, v), softmax)


@pytest.mark.parametrize("causal", [False, True])
def test_the_first_branch_with_blocks_of_one_is_softmax(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(0, monkeypatch)
    q, k, v = (normal(1, 2, 40, 4, seed=s) for s in range(3))
    # With causal over the keys before the query, so the first gives 0.
    keep = torch.ones(40, 40, dtype=torch.bool).tril(-1 if causal else 40)
    torch.testing.assert_close(build(causal=causal, block=1)(q, k, v), masked_softmax(q, k, keep) @ v)


@pytest.mark.parametrize("causal", [False, True])
def test_gates_learn_as_those_of_the_twin(causal: bool) -> None:
    attention = build(causal=causal)
    q, k, v = (normal(2, 2, 33, 4, seed=s) for s in range(3))
    outs = attention(q, k, v), attention.twin(q, k, v, rows=torch.arange(33))
    found, expected = (torch.autograd.grad(out.square().sum(), attention.gate)[0] for out in outs)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("causal", [False, True])
def test_compressing_has_the_right_gradients(causal: bool) -> None:
    q, k, v = (normal(2, 2, 11, 3, seed=s).requires_grad_() for s in range(3))
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[0, 0:4] = mask[1, 5:9] = False

    def compressed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return compressed_attention(q, k, v, block=4, causal=causal, key_mask=mask)

    assert torch.autograd.gradcheck(compressed, (q, k, v), fast_mode=True)


def test_means_of_half_floats_are_summed_in_whole_ones() -> None:
    # In bfloat16 257 is 256, and its 257th part not 1.
    ones = torch.ones(1, 1, 257, 8, dtype=torch.bfloat16)
    out = compressed_attention(ones, ones, ones, block=257, causal=False)
    assert bool((out == 1).all())


@pytest.mark.parametrize("causal", [False, True])
def test_what_it_keeps_is_linear_in_n(causal: bool) -> None:
    kept = list[int]()
    for n in (512, 1024):
        largest = 0

        def pack(x: Tensor) -> Tensor:
            nonlocal largest
            largest = max(largest, x.untyped_storage().nbytes())
            return x

        x = [normal(1, 2, n, 4, dtype=torch.float32, seed=s).requires_grad_() for s in range(3)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            build(causal=causal, block=8).float()(*x)
        kept.append(largest)
    assert kept[1] <= 2.1 * kept[0]


@pytest.mark.parametrize(("option", "value"), [("block", 0), ("topk", 0), ("window", -1)])
def test_options_out_of_range_are_refused(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be at least \d, not {value}"):
        NSA(Dims(2, 4, 200), **{option: value})  # pyright: ignore[reportArgumentType]
