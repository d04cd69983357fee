import pytest
import torch
from torch import Tensor

from variants.controls.mlp_window import MlpWindow
from variants.interface import Dims
from variants.kernels import slabs
from variants.kernels.frames import Maps, network_of_frames


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def maps(frames: int, width: int = 3, hidden: int = 6) -> Maps:
    return Maps(
        draw(hidden, frames * width, seed=1), draw(hidden, seed=2), draw(width, hidden, seed=3), draw(width)
    )


@pytest.fixture(params=[1, 40, 2**19])
def slab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB", request.param)
    monkeypatch.setattr(slabs, "FEWEST_ROWS", 2)


@pytest.mark.usefixtures("slab")
@pytest.mark.parametrize(("n", "left", "right"), [(1, 2, 2), (3, 5, 0), (11, 0, 3), (12, 2, 1), (9, 0, 0)])
def test_slabs_are_the_dense_network(n: int, left: int, right: int) -> None:
    given = maps(left + right + 1)
    leaves = [draw(3, n, 3, seed=4).requires_grad_(), *(w.requires_grad_() for w in given)]
    x, inner, inner_bias, out, out_bias = leaves
    padded = torch.cat((x.new_zeros(3, left, 3), x, x.new_zeros(3, right, 3)), 1)
    windows = torch.cat([padded[:, t : t + n] for t in range(left + right + 1)], 2)
    expected = (windows @ inner.T + inner_bias).relu() @ out.T + out_bias
    found = network_of_frames(x, given, left)
    torch.testing.assert_close(found, expected)
    upstream = draw(3, n, 3, seed=5)
    for one, other in zip(
        torch.autograd.grad(found, leaves, upstream),
        torch.autograd.grad(expected, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("slab")
def test_gradients_are_those_of_differences() -> None:
    leaves = [draw(2, 7, 3, seed=4).requires_grad_(), *(w.requires_grad_() for w in maps(4))]
    assert torch.autograd.gradcheck(lambda x, *w: network_of_frames(x, Maps(*w), 2), leaves)


def test_gradients_of_many_slabs_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB", 128)
    mixer, x = MlpWindow(Dims(1, 4, 4096), hidden=4).bfloat16(), draw(1, 4096, 4).bfloat16()
    found = torch.autograd.grad(mixer(x).sum(), list(mixer.parameters()))
    mixer.double()
    exact = torch.autograd.grad(mixer(x.double()).sum(), list(mixer.parameters()))
    for one, other in zip(found, exact, strict=True):
        assert float((one.double() - other).norm() / other.norm()) < 2 * torch.finfo(torch.bfloat16).eps


def test_nothing_is_as_large_as_the_hidden_layer() -> None:
    mixer, x, held = MlpWindow(Dims(1, 4, 4096)), draw(1, 4096, 4).float().requires_grad_(), list[int]()

    def pack(tensor: Tensor) -> Tensor:
        held.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mixer(x)
    assert max(held) == 4 * 4096 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_round_the_network(dtype: torch.dtype) -> None:
    mixer, x = MlpWindow(Dims(2, 4, 50)), draw(2, 50, 8).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mixer(x)
        (grad,) = torch.autograd.grad(out.sum(), x)
    assert out.dtype == grad.dtype == dtype
    mixer.to(dtype)
    assert out.equal(mixer(x))
