import pytest
import torch

from variants.interface import Dims
from variants.kernels.draws import mixed, subsets
from variants.sparse.bigbird import BigBird


def attention(*, causal: bool = False, seed: int = 0) -> BigBird:
    options = {"block": 4, "window": 3, "global_blocks": 2, "random_blocks": 3}
    return BigBird(Dims(3, 4, 96, seed), causal=causal, **options)


def blocks(bird: BigBird, n: int = 96, mask: torch.Tensor | None = None) -> torch.Tensor:
    """(B, H, I, J): whether the last query of block I keeps the first key of block J."""
    rows = torch.arange(3, n, 4)
    q, k = torch.zeros(1, 3, len(rows), 4), torch.zeros(1, 3, n, 4)
    return bird.kept(q, k, rows=rows, key_mask=mask)[..., ::4]


@pytest.mark.parametrize("causal", [False, True])
def test_random_blocks_are_as_many_as_asked_and_not_seen_anyway(causal: bool) -> None:
    layout = blocks(attention(causal=causal))
    for head in layout[0]:
        for i, row in enumerate(head.tolist()):
            if i < 2 and not causal:
                assert all(row)
                continue
            near = {j for j in (i - 1, i, i + 1) if 0 <= j < 24 and (j <= i or not causal)}
            near |= {0, 1} & set(range(i + 1))
            others = {j for j in range(24) if row[j]} - near
            left = set(range(i if causal else 24)) - near
            assert near <= {j for j in range(24) if row[j]}
            assert len(others) == min(3, len(left))
            assert others <= left


def test_heads_and_seeds_draw_differently() -> None:
    layout = blocks(attention())[0]
    assert not torch.equal(layout[0], layout[1])
    assert not torch.equal(layout, blocks(attention(seed=1))[0])
    assert torch.equal(layout, blocks(attention())[0])


def test_the_state_carries_the_layout() -> None:
    one, two = attention(seed=1), attention(seed=2)
    two.load_state_dict(one.state_dict())
    assert torch.equal(blocks(one), blocks(two))


def test_masked_keys_at_the_end_leave_the_layout_of_the_rest() -> None:
    mask = torch.arange(96)[None] < 68
    assert torch.equal(blocks(attention(), 96, mask)[:, :, :17, :17], blocks(attention(), 68))


def test_causal_layout_does_not_ask_for_the_length() -> None:
    bird = attention(causal=True)
    assert torch.equal(blocks(bird, 96)[:, :, :12, :12], blocks(bird, 48))


def test_subsets_are_uniform() -> None:
    state = mixed(torch.arange(20_000))
    drawn = subsets(state, torch.full((20_000,), 6), 2)
    assert bool((drawn[:, 0] != drawn[:, 1]).all())
    pairs = torch.bincount((2**drawn).sum(1))
    found = pairs[pairs > 0]
    assert len(found) == 15
    # A fifteenth each, give or take five standard deviations.
    assert float((found - 20_000 / 15).abs().max()) < 5 * (20_000 / 15) ** 0.5


def test_fewer_than_asked_are_all() -> None:
    drawn = subsets(mixed(torch.arange(4)), torch.tensor([0, 1, 2, 3]), 3)
    assert [sorted(row) for row in drawn.tolist()] == [[-1, -1, -1], [-1, -1, 0], [-1, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize("options", [{"window": 2}, {"window": -1}, {"random_blocks": -1}, {"block": 0}])
def test_wrong_options_are_named(options) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        BigBird(Dims(1, 4, 8), **options)
