"""The matrices of training that come with attnbench: what each promises, read from its cells."""

import pytest

from bench.matrix import Matrix, shipped
from bench.planning import Resolver, unsupported
from results.cell import TrainingCell
from results.tracks import TRACKS

LRA = ["listops", "text", "retrieval", "image", "pathfinder"]
# Batch, warm-up, steps, and steps between looks, of Xiong et al. 2021's published configuration.
PUBLISHED = {
    "listops": (32, 1000, 5000, 50),
    "text": (32, 8000, 20000, 500),
    "retrieval": (32, 800, 30000, 300),
    "image": (256, 175, 35000, 175),
    "pathfinder": (256, 312, 62400, 312),
}
TRAINED = ["lra-small", "lra-modern", "text-bytes", "lra-cpu", "probes"]


def trained(name: str) -> list[TrainingCell]:
    return [cell for cell in Matrix.read(name).cells() if isinstance(cell, TrainingCell)]


@pytest.mark.parametrize("name", TRAINED)
def test_every_variant_of_a_track_is_trained_alike(name: str):
    cells = trained(name)
    assert len(cells) == len(Matrix.read(name).cells())
    assert {cell.track for cell in cells} == {name}
    assert str(cells[0].variant) == "sdpa"
    recipes: dict[str, set[str]] = {}
    seeds: dict[tuple[str, str], set[int]] = {}
    for cell in cells:
        recipe = cell.model_dump_json(exclude={"variant", "seed"})
        recipes.setdefault(str(cell.task), set()).add(recipe)
        seeds.setdefault((str(cell.task), str(cell.variant)), set()).add(cell.seed)
    assert all(len(found) == 1 for found in recipes.values())
    assert all(len(found) >= 3 for found in seeds.values())
    variants = {str(cell.variant) for cell in cells}
    assert seeds.keys() == {(task, variant) for task in recipes for variant in variants}


@pytest.mark.parametrize("name", ["lra-small", "lra-modern"])
def test_both_tracks_of_long_range_arena_have_its_tasks_whole(name: str):
    assert name in TRACKS
    assert list(dict.fromkeys(str(cell.task) for cell in trained(name))) == LRA


def test_the_small_track_has_the_published_budget():
    for cell in trained("lra-small"):
        found = (cell.batch, cell.warmup, cell.steps, cell.evaluate_every)
        assert found == PUBLISHED[cell.task.name]


def test_what_fits_two_cores_has_the_network_of_the_small_track():
    promised = {**TRACKS["lra-small"]}
    for name in ("text-bytes", "lra-cpu"):
        for cell in trained(name):
            other = {field for field, value in promised.items() if getattr(cell, field) != value}
            assert other == {"learning_rate"}


@pytest.mark.parametrize("name", TRAINED)
def test_every_cell_can_be_built(name: str):
    resolver = Resolver()
    for cell in trained(name):
        assert unsupported(cell.model_copy(update={"device": "cpu"}), resolver) == []


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_not_long_range_arena_says_so(name: str):
    said = Matrix.read(name).description
    whole = name in ("lra-small", "lra-modern")
    assert ("Not Long Range Arena" in said or "not Long Range Arena" in said) != whole
    assert "seeds" in said or not whole
    assert name in shipped()
