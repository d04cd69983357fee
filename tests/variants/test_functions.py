"""Custom autograd functions: one derivative, and float32 whatever autocast would make of their products."""

import pytest
import torch

from variants.blocked.axial import Axial
from variants.blocked.block_sparse import BlockSparse
from variants.interface import Attention, Dims
from variants.sparse.bigbird import BigBird

DIMS = Dims(heads=2, head_dim=8, max_len=64)
VARIANTS = [
    Axial(DIMS, columns=5, mode="criss_cross"),
    BlockSparse(DIMS, block=4, layout="butterfly"),
    BigBird(DIMS, block=4, global_blocks=1, random_blocks=1),
]
NAMES = ("criss_cross", "block_sparse", "bigbird")


def inputs(n: int = 40) -> list[torch.Tensor]:
    return [
        torch.randn(1, 2, n, 8, generator=torch.Generator().manual_seed(s)).requires_grad_() for s in range(3)
    ]


@pytest.mark.parametrize("attention", VARIANTS, ids=NAMES)
def test_a_second_derivative_is_refused(attention: Attention) -> None:
    x = inputs()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(attention(*x).square().sum(), x[:1], create_graph=True)


@pytest.mark.parametrize("attention", VARIANTS, ids=NAMES)
def test_autocast_changes_nothing(attention: Attention) -> None:
    x = inputs()
    plain = attention(*x)
    expected = (plain, *torch.autograd.grad(plain.square().sum(), x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(*x)
        found = (out, *torch.autograd.grad(out.square().sum(), x))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
