"""Cells come setting by setting, and parts of a matrix are parts."""

from collections import Counter
from itertools import product

import pytest

from bench.order import Shard, in_rounds, setting
from results.cell import Cell, MemoryCell, SpeedCell
from results.spec import Spec

VARIANTS, LENGTHS = ("sdpa", "linear", "mean"), (64, 128, 256, 512)


def cells() -> list[Cell]:
    return [
        kind(variant=Spec.parse(name), length=length, sources=name)
        for kind, name, length in product((SpeedCell, MemoryCell), VARIANTS, LENGTHS)
    ]


def test_wherever_it_stops_no_variant_is_ahead_by_more_than_one():
    order = in_rounds(cells(), "seed")
    for stop in range(len(order) + 1):
        counts = Counter(cell.variant.name for cell in order[:stop])
        assert max(counts[name] for name in VARIANTS) - min(counts[name] for name in VARIANTS) <= 1


def test_a_setting_is_finished_before_the_next_begins():
    order = [setting(cell) for cell in in_rounds(cells(), "seed")]
    assert [order.index(one) for one in dict.fromkeys(order)] == list(range(0, len(order), len(VARIANTS)))


def test_the_order_is_shuffled_and_that_of_its_seed_whatever_comes_in():
    order = in_rounds(cells(), "seed")
    assert in_rounds(reversed(cells()), "seed") == order
    assert in_rounds(cells(), "another") != order
    lengths = [cell.length for cell in order if isinstance(cell, SpeedCell)]
    assert lengths != sorted(lengths)


def test_with_a_cost_the_cheap_settings_of_all_come_first():
    order = in_rounds(cells(), "seed", lambda group: (max(getattr(cell, "length", 0) for cell in group), 0.0))
    lengths = [getattr(cell, "length", 0) for cell in order]
    assert lengths == sorted(lengths)


def test_with_a_cost_repetitions_are_as_far_apart_as_can_be():
    matrix = [
        SpeedCell(variant=Spec.parse(name), length=length, repeat=repeat)
        for name, length, repeat in product(VARIANTS, LENGTHS, (0, 1, 2))
    ]
    order = in_rounds(matrix, "seed", lambda group: (max(getattr(cell, "length", 0) for cell in group), 0.0))
    found = [(cell.repeat, cell.length) for cell in order if isinstance(cell, SpeedCell)]
    assert found == sorted(found)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_hold_every_cell_once(count: int):
    found = [cell.id for number in range(count) for cell in Shard(number + 1, count).of(cells())]
    assert sorted(found) == sorted(cell.id for cell in cells())


def test_of_more_parts_than_figures_the_last_are_empty():
    assert Shard(10**12, 10**12).of(cells()) == []
    assert len(Shard(2, 10**12).of(cells())) == len(Shard(2, 2).of(cells()))


def test_a_shard_has_all_variants_lengths_and_repetitions_of_a_figure():
    matrix = [
        SpeedCell.model_validate(
            {"variant": name, "length": length, "pass": passes, "dtype": dtype, "repeat": repeat}
        )
        for name, length, passes, dtype, repeat in product(
            VARIANTS, LENGTHS, ("fwd", "fwd_bwd"), ("float32", "bfloat16"), (0, 1)
        )
    ]
    parts = [Shard(number + 1, 3).of(matrix) for number in range(3)]
    figures = [{(cell.pass_, cell.dtype) for cell in part if isinstance(cell, SpeedCell)} for part in parts]
    assert sorted(map(len, figures)) == [1, 1, 2]
    assert len(set.union(*figures)) == 4
    # Whoever has the same matrix has the same parts, whatever its order.
    assert {cell.id for cell in Shard(1, 3).of(matrix[::-1])} == {cell.id for cell in parts[0]}


def test_a_shard_is_read():
    assert Shard.parse("2/4") == Shard(2, 4)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "2", "a/b", "-1/4", "1/4/2", ""])
def test_what_is_no_shard_is_refused(text: str):
    with pytest.raises(ValueError, match="as in 2/4"):
        Shard.parse(text)
