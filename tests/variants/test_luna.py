import pytest
import torch

from variants.interface import Dims, Unsupported
from variants.low_rank.luna import Luna


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(memory: int = 3) -> Luna:
    return Luna(Dims(2, 4, 16), memory=memory).double()


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_torchs_multi_head_attention_twice(masked: bool) -> None:
    luna, x = built(), normal(2, 7, 8)
    mask = torch.tensor([[True] * 7, [True, False, True, True, False, False, False]]) if masked else None
    pack, unpack = (torch.nn.MultiheadAttention(8, 2, batch_first=True).double() for _ in range(2))
    with torch.no_grad():
        for theirs, ours in ((pack, luna.pack), (unpack, luna.unpack)):
            theirs.in_proj_weight.copy_(torch.cat([f.get_parameter("weight") for f in ours]))
            theirs.in_proj_bias.copy_(torch.cat([f.get_parameter("bias") for f in ours]))
        pack.out_proj.weight.copy_(torch.eye(8))
        pack.out_proj.bias.zero_()
        unpack.out_proj.load_state_dict(luna.out.state_dict())
        asked = luna.memory.expand(2, -1, -1)
        packed = pack(asked, x, x, key_padding_mask=None if mask is None else ~mask)[0]
        expected = unpack(x, packed, packed)[0]
        if mask is not None:
            expected[~mask] = 0.0
        torch.testing.assert_close(luna(x, mask=mask), expected, rtol=1e-10, atol=1e-12)


def test_a_memory_of_one_row_says_the_same_to_all() -> None:
    y = built(memory=1)(normal(1, 6, 8))
    torch.testing.assert_close(y, y[:, :1].expand_as(y))


def test_two_rows_say_different_things() -> None:
    y = built(memory=2)(normal(1, 6, 8))
    assert (y[:, 1:] - y[:, :1]).abs().amax() > 1e-6


def test_positions_in_another_order_come_out_in_that_order() -> None:
    luna, x = built(), normal(1, 6, 8)
    torch.testing.assert_close(luna(x.flip(1)), luna(x).flip(1))


def test_nothing_is_as_large_as_the_square() -> None:
    n = 2048
    luna, x = Luna(Dims(1, 8, n), memory=16), normal(1, n, 8).float().requires_grad_()
    held = list[int]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        luna(x)
    assert max(held) < n * n / 4


def test_the_twin_of_no_positions_is_0_in_float32() -> None:
    x, mask = normal(2, 5, 8).float(), torch.tensor([[False] * 5, [True] * 5])
    y = built().float().twin(x, mask=mask)
    assert not y[0].any()
    assert y.isfinite().all()


def test_gradients_are_those_of_differences() -> None:
    luna, x = built(memory=2), normal(1, 4, 8).requires_grad_()
    mask = torch.tensor([[True, False, True, True]])

    def mix(x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        del memory
        return luna(x, mask=mask)

    assert torch.autograd.gradcheck(mix, (x, luna.memory))


def test_what_it_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="0"):
        built(memory=0)
    with pytest.raises(Unsupported, match="causal"):
        Luna(Dims(2, 4, 16), causal=True)
    with pytest.raises(Unsupported, match="cross"):
        built()(normal(1, 4, 8), normal(1, 5, 8))
