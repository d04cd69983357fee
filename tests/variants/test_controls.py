from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from variants.controls.conv import Conv
from variants.controls.fnet import FNet
from variants.controls.gru import Gru
from variants.controls.lstm import Lstm
from variants.controls.mlp_window import MlpWindow
from variants.interface import Dims, Request

DIMS = Dims(heads=2, head_dim=4, max_len=64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_fnet_is_the_two_dimensional_transform(width: int) -> None:
    x = draw(2, 9, width)
    expected = torch.fft.fft2(x, norm="ortho").real
    torch.testing.assert_close(FNet(Dims(1, width, 9))(x), expected)


def test_fnet_transforms_what_is_kept() -> None:
    x, mask = draw(3, 9, 8), torch.arange(27).view(3, 9) % 4 != 1
    mask[2] = False
    out = FNet(DIMS)(x, mask=mask)
    for b in (0, 1):
        torch.testing.assert_close(out[b, mask[b]], torch.fft.fft2(x[b, mask[b]], norm="ortho").real)
    assert not out[~mask].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("causal", [False, True])
def test_conv_is_torchs(dtype: torch.dtype, causal: bool) -> None:
    conv = Conv(DIMS, causal=causal, kernel=5).to(dtype)
    x = draw(3, 20, 8).to(dtype)
    padded = F.pad(x.transpose(1, 2), (4, 0) if causal else (2, 2))
    expected = conv.out(F.conv1d(padded, conv.filters[:, None], groups=8).transpose(1, 2))
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("n", [1, 3, 11])
def test_conv_gradients_are_those_of_differences(n: int) -> None:
    conv = Conv(Dims(1, 3, 16), causal=n == 3, kernel=5).double()
    x = draw(2, n, 3).requires_grad_()

    def act(x: Tensor, filters: Tensor) -> Tensor:
        return torch.func.functional_call(conv, {"filters": filters}, (x,))

    filters = conv.filters.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(act, (x, filters))
    assert torch.autograd.gradgradcheck(act, (x, filters))


def test_conv_kernels_are_odd() -> None:
    with pytest.raises(ValueError, match="odd and at least 1, not 4"):
        Conv(DIMS, kernel=4)


def test_a_window_of_frames_is_a_dense_convolution() -> None:
    mixer = MlpWindow(DIMS, left=3, right=1, hidden=6).double()
    x = draw(3, 20, 8)
    weight = mixer.inner.weight.unflatten(1, (5, 8)).transpose(1, 2)
    hidden = F.conv1d(F.pad(x.transpose(1, 2), (3, 1)), weight, mixer.inner.bias).transpose(1, 2)
    torch.testing.assert_close(mixer(x), mixer.out(hidden.relu()))


def test_bad_windows_are_named() -> None:
    with pytest.raises(ValueError, match="right must be at least 0, not -1"):
        MlpWindow(DIMS, right=-1)
    with pytest.raises(ValueError, match="hidden must be at least 1, not 0"):
        MlpWindow(DIMS, hidden=0)


@pytest.mark.parametrize(("cls", "module"), [(Lstm, nn.LSTM), (Gru, nn.GRU)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recurrent_networks_are_torchs_on_packed_sequences(
    cls: type[Lstm] | type[Gru], module: type[nn.LSTM] | type[nn.GRU], dtype: torch.dtype
) -> None:
    mixer = cls(DIMS).to(dtype)
    with torch.random.fork_rng():
        torchs = module(8, 4, batch_first=True, bidirectional=True).to(dtype)
    for one, other in zip(torchs.parameters(), mixer.parameters(), strict=True):
        one.data.copy_(other)
    x, lengths = draw(3, 12, 8).to(dtype), torch.tensor([12, 5, 1])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(torchs(packed)[0], batch_first=True, total_length=12)
    torch.testing.assert_close(mixer(x, mask=torch.arange(12) < lengths[:, None]), expected)


@pytest.mark.parametrize("cls", [Lstm, Gru])
@pytest.mark.parametrize("causal", [False, True])
def test_recurrent_networks_do_not_step_at_masked_positions(
    cls: type[Lstm] | type[Gru], causal: bool
) -> None:
    mixer = cls(DIMS, causal=causal).double()
    x, mask = draw(1, 20, 8), torch.arange(20)[None] % 3 != 1
    torch.testing.assert_close(mixer(x, mask=mask)[mask][None], mixer(x[mask][None]))


@pytest.mark.parametrize(("cls", "name"), [(Lstm, "lstm"), (Gru, "gru")])
def test_recurrent_networks_say_that_they_train(
    cls: type[Lstm] | type[Gru], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # cuDNN keeps nothing for a backward pass unless it is told so, whether or not gradients are asked for.
    fused, told = getattr(torch, name), list[bool]()

    def look(*given: Any) -> Any:
        told.append(given[6])
        return fused(*given)

    monkeypatch.setattr(torch, name, look)
    cls(DIMS).double()(draw(1, 5, 8))
    assert told == [True, True]


def test_pages_are_of_cpus_alone() -> None:
    request = Request(batch=1, heads=2, queries=64, keys=64, head_dim=4)
    mixer = Lstm(DIMS, causal=True)
    kept = mixer.cost(replace(request, device="cuda")).bytes_saved
    assert kept == 4 * 64 * (6 * 8 + 8)
    assert mixer.cost(request).bytes_saved > kept


@pytest.mark.parametrize("cls", [Lstm, Gru])
def test_two_directions_need_an_even_width(cls: type[Lstm] | type[Gru]) -> None:
    with pytest.raises(ValueError, match="even width, not 3"):
        cls(Dims(1, 3, 8))
    cls(Dims(1, 3, 8), causal=True)
