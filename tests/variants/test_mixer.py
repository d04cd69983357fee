import pytest
import torch

from variants.full.sdpa import Sdpa
from variants.full.softmax import Softmax
from variants.interface import Dims
from variants.mixer import MultiHead, rotate


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rotated_scores_depend_on_distance_alone() -> None:
    # The same vector at every position: the score of any two must be a function of how far apart they are.
    one, two = (torch.randn(1, 1, 1, 8, generator=generator(s), dtype=torch.float64) for s in (1, 2))
    q, k = rotate(one.expand(1, 1, 12, 8)), rotate(two.expand(1, 1, 12, 8))
    scores = (q @ k.transpose(-1, -2))[0, 0]
    for distance in range(-11, 12):
        along = scores.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert scores[0].std() > 0.01


def test_rotation_keeps_lengths_and_the_first_position() -> None:
    x = torch.randn(2, 3, 9, 6, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1))
    assert rotate(x)[:, :, 0].equal(x[:, :, 0])


def test_rotation_of_half_types_is_that_of_float32_rounded() -> None:
    x = torch.randn(1, 1, 4096, 4, generator=generator()).bfloat16()
    torch.testing.assert_close(rotate(x).float(), rotate(x.float()), rtol=0.02, atol=0.05)


def test_rotary_positions_need_an_even_width() -> None:
    with pytest.raises(ValueError, match="even head_dim, not 3"):
        MultiHead(Softmax(Dims(2, 3, 8)), generator=generator(), rotary=True)


def test_variants_start_from_the_same_projections() -> None:
    dims = Dims(2, 4, 8)
    one, two = (MultiHead(a, generator=generator(5)) for a in (Softmax(dims), Sdpa(dims)))
    assert all(a.equal(b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    x = torch.randn(2, 8, 8, generator=generator(1))
    torch.testing.assert_close(one(x), two(x))


def test_cross_attention_masks_the_context() -> None:
    layer = MultiHead(Softmax(Dims(2, 4, 8)), generator=generator())
    x, context = (torch.randn(2, n, 8, generator=generator(n)) for n in (3, 6))
    kept = torch.arange(6)[None, :] < torch.tensor([[6], [4]])
    out = layer(x, context, context_mask=kept)
    torch.testing.assert_close(out[1:], layer(x[1:], context[1:, :4]))
