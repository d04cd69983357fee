from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from variants.contract import LAWS, run_contract
from variants.interface import Caps, Dims
from variants.sparse.longformer import Longformer


class Untied(Longformer):
    """Longformer with projections for global rows: it is learned, so it has capabilities of its own."""

    caps: ClassVar[Caps] = replace(Longformer.caps, learned=True, linear_in_v=False)
    trials: ClassVar[tuple[Mapping[str, int | float | str | bool], ...]] = (
        {"window": 3, "global_positions": 2, "tied": False},
        {"window": 0, "global_positions": 7, "tied": False},
    )

    @classmethod
    def exact_limit(cls, dims: Dims, *, causal: bool) -> Longformer:
        return cls(dims, causal=causal, window=dims.max_len, global_positions=1, tied=False)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def untied(causal: bool = False) -> Longformer:
    """With projections that are not the identity."""
    attention = Longformer(Dims(2, 4, 40), causal=causal, window=2, global_positions=3, tied=False).double()
    assert attention.projections is not None
    with torch.no_grad():
        attention.projections.copy_(normal(*attention.projections.shape, seed=9))
    return attention


def test_untied_keeps_the_contract() -> None:
    # The type checker of these tests draws random numbers, so that law cannot be asked here.
    laws = [law for law in LAWS if law != "global random state"]
    assert [f for f in run_contract(Untied, laws) if f.status not in ("held", "skipped")] == []


def test_only_what_is_untied_learns() -> None:
    attention = Longformer(Dims(2, 4, 40), global_positions=0)
    assert not list(attention.parameters())
    assert not attention.caps.learned
    with pytest.raises(ValueError, match="tied = False does nothing with global_positions = 0"):
        Longformer(Dims(2, 4, 40), global_positions=0, tied=False)
    assert untied().caps.learned
    assert not Longformer.caps.learned


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_each_row_uses_its_own_projections(causal: bool, masked: bool) -> None:
    # Row by row, from the paper: global rows by Q_g, K_g, V_g, the others as if there were none.
    attention, n = untied(causal), 17
    q, k, v = (normal(2, 2, n, 4, seed=s) for s in range(3))
    mask = torch.rand(2, n, generator=torch.Generator().manual_seed(4)) < 0.7 if masked else None
    found = attention(q, k, v, key_mask=mask)
    of_q, of_k, of_v = attention.projections
    for b in range(2):
        for h in range(2):
            for i in range(n):
                seen = [
                    j
                    for j in range(n)
                    if (abs(i - j) <= 2 or i < 3 or j < 3)
                    and not (causal and j > i)
                    and (mask is None or mask[b, j])
                ]
                if not seen:
                    assert found[b, h, i].eq(0).all()
                    continue
                query, keys, values = q[b, h, i], k[b, h, seen], v[b, h, seen]
                if i < 3:
                    query, keys, values = of_q[h] @ query, keys @ of_k[h].T, values @ of_v[h].T
                expected = ((keys @ query) / 2).softmax(0) @ values
                torch.testing.assert_close(found[b, h, i], expected, rtol=1e-9, atol=1e-11)


def test_twin_of_trained_projections() -> None:
    attention = untied()
    q, k, v = (normal(1, 2, 33, 4, seed=s) for s in range(3))
    rows = torch.tensor([0, 2, 3, 32])
    twin = attention.twin(q, k, v, rows=rows)
    torch.testing.assert_close(twin, attention(q, k, v)[:, :, rows], rtol=1e-9, atol=1e-11)


def test_untied_starts_as_tied() -> None:
    q, k, v = (normal(1, 2, 33, 4, seed=s) for s in range(3))
    options = {"window": 2, "global_positions": 3}
    one = Longformer(Dims(2, 4, 40), tied=False, **options).double()
    torch.testing.assert_close(one(q, k, v), Longformer(Dims(2, 4, 40), **options)(q, k, v))
