"""What a sequence must carry to decode its next token, by who sees what: never more than all of it."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from variants import VARIANTS
from variants.interface import Attention, Dims, Request

HEADS, HEAD_DIM = 2, 4
SHORT: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("window", {"left": 5}),
    ("dilated_window", {"window": 3, "dilation": 4}),
    ("longformer", {"window": 4, "global_positions": 3}),
    ("longformer", {"window": 4, "global_positions": 0}),
    ("chunked", {"chunk": 4, "left_chunks": 2}),
    ("sparse_transformer", {"pattern": "strided", "stride": 5}),
    ("sparse_transformer", {"pattern": "fixed", "stride": 5, "summary": 2}),
    ("sparse_transformer", {"pattern": "fixed", "stride": 6, "summary": 6}),
    ("graph", {"edges": "grid", "width": 7}),
)


def state(name: str, options: Mapping[str, Any], n: int) -> int | None:
    made = VARIANTS[name](Dims(HEADS, HEAD_DIM, 200), causal=True, **options)
    return made.cost(Request(batch=3, heads=HEADS, queries=n, keys=n, head_dim=HEAD_DIM)).state


def needed(name: str, options: Mapping[str, Any], n: int) -> int:
    """The most keys that any query from n on can see of those before, and all that come later may need."""
    made = VARIANTS[name](Dims(HEADS, HEAD_DIM, 200), causal=True, **options)
    assert isinstance(made, Attention)
    assert made.pattern is not None
    keep = made.pattern.dense(200, 200)
    return max(int(keep[end:, :end].any(0).sum()) for end in range(1, n + 1))


@pytest.mark.parametrize("n", [1, 2, 9, 40])
@pytest.mark.parametrize(("name", "options"), SHORT)
def test_state_is_enough_and_no_more_than_all(name: str, options: Mapping[str, Any], n: int) -> None:
    declared = state(name, options, n)
    assert declared is not None
    numbers = 2 * HEADS * HEAD_DIM
    assert numbers * needed(name, options, n) <= declared <= numbers * n


def test_fixed_blocks_are_forgotten_but_for_their_summaries() -> None:
    found = state("sparse_transformer", {"pattern": "fixed", "stride": 10, "summary": 2}, 100)
    assert found == 2 * HEADS * HEAD_DIM * (10 + 2 * 100 // 10)


def test_reformer_decodes_from_the_last_keys_of_each_bucket() -> None:
    # A query sees the last `bucket` keys of its bucket in each round, so the others can go.
    options = {"bucket": 2, "hashes": 3, "buckets": 4}
    assert state("reformer", options, 100) == 2 * HEADS * HEAD_DIM * 2 * 3 * 4
    assert state("reformer", options, 5) == 2 * HEADS * HEAD_DIM * 5


def test_reformer_needs_none_but_the_last_keys_of_each_bucket() -> None:
    made = VARIANTS["reformer"](Dims(HEADS, HEAD_DIM, 64), causal=True, bucket=2, hashes=2, buckets=4)
    assert isinstance(made, Attention)
    made = made.double()
    q, k = (
        torch.randn(1, HEADS, 64, HEAD_DIM, generator=torch.Generator().manual_seed(s), dtype=torch.float64)
        for s in range(2)
    )
    keep = made.kept(q, k, rows=torch.arange(64))
    for end in (20, 50):
        carried = keep[:, :, end:, :end].any(2).sum(-1)
        assert int(carried.max()) <= 2 * 2 * 4
