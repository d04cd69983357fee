"""The matrix `reach` asks on both sides of what its variants see by their own account."""

from bench.matrix import Matrix, shipped
from bench.resolver import Resolver
from lra_tasks.probes.recall import Recall
from results.cell import TrainingCell
from variants.interface import Attention, Dims, Request

# Tokens between the last distance that is seen and the next, which is not.
APART = 2


def cells(task: str) -> list[TrainingCell]:
    every = Matrix.read(str(shipped()["reach"])).cells()
    return [cell for cell in every if isinstance(cell, TrainingCell) and cell.task.name == task]


def sees(cell: TrainingCell) -> int | None:
    """How far back the whole network sees: the reach of a layer, times the layers."""
    length = int(str(cell.task.options["length"]))
    dims = Dims(heads=cell.heads, head_dim=cell.head_dim, max_len=length, seed=0)
    variant = Resolver().build(cell.variant, dims, causal=False)
    assert isinstance(variant, Attention)
    cost = variant.cost(Request(cell.batch, cell.heads, length, length, cell.head_dim))
    return None if cost.reach is None else cell.layers * cost.reach


def test_every_reach_lies_between_two_distances() -> None:
    for cell in cells("needle"):
        asked = sorted(
            int(str(c.task.options["distance"])) for c in cells("needle") if c.variant == cell.variant
        )
        reach = sees(cell)
        if reach is not None and reach < asked[-1]:
            assert reach in asked
            assert reach + APART in asked


def test_recall_is_asked_wholly_on_either_side_of_every_reach() -> None:
    for cell in cells("recall"):
        task, reach = Resolver().task(cell.task), sees(cell)
        assert isinstance(task, Recall)
        farthest = task.distance + 3 * (task.pairs - 1)
        assert reach is None or farthest <= reach or task.distance > reach


def test_near_and_far_sighted_variants_are_there() -> None:
    reaches = {cell.variant.name: sees(cell) for cell in cells("needle")}
    assert reaches["window"] == 16
    assert reaches["dilated_window"] == 32
    assert reaches["longformer"] is reaches["linear"] is None
