"""The training loop."""

import pytest
import torch

from bench.weights import digest
from tests.bench.plain_loop import trained
from tests.bench.test_training import RAGGED, TASK, cell, run


@pytest.mark.parametrize("task", [TASK, RAGGED])
def test_where_nothing_is_turned_on_the_weights_are_those_of_the_plain_loop(task: str):
    # More steps than an epoch has batches, and what draws at random.
    asked = cell(task=task, steps=21, dropout=0.2, weight_decay=0.01)
    assert run(asked).weights_sha256 == digest(trained(asked).state_dict())


def test_the_digest_of_weights_knows_every_bit_and_every_name():
    some = {"a": torch.zeros(2, 3), "b": torch.ones(1), "number": 3}
    same = {name: some[name] for name in reversed(some)}
    assert digest(some) == digest(same)
    others = [
        {**some, "a": torch.zeros(3, 2)},
        {**some, "a": torch.zeros(2, 3, dtype=torch.float64)},
        {**some, "a": -torch.zeros(2, 3)},
        {**some, "number": 4},
        {"a": some["b"], "b": some["a"], "number": 3},
    ]
    assert len({digest(some), *map(digest, others)}) == 1 + len(others)
