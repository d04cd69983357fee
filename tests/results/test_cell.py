import pytest
from pydantic import TypeAdapter, ValidationError

from results.cell import CELLS, Cell, SpeedCell, TrainingCell
from results.spec import Spec

READ = TypeAdapter[Cell](Cell)


def test_identity_survives_json_and_ignores_the_order_of_keys():
    cell = SpeedCell.model_validate({"variant": "window(left=1, right=2)", "length": 8, "pass": "fwd_bwd"})
    other = SpeedCell.model_validate({"pass": "fwd_bwd", "length": 8, "variant": "window(right=2, left=1)"})
    assert READ.validate_json(cell.model_dump_json()).id == cell.id == other.id


def test_identity_is_the_same_on_every_machine():
    # A frozen value: if it changes, every record on disk becomes an orphan. Then raise SCHEMA_VERSION.
    assert SpeedCell(variant=Spec(name="sdpa"), length=8).id == "e655bd69cf440245"


def test_every_field_but_none_changes_identity():
    base = TrainingCell(variant=Spec(name="sdpa"), task=Spec(name="recall"))
    changes: dict[str, object] = {
        "variant": Spec(name="linear"), "task": Spec(name="text"), "causal": True, "heads": 8, "head_dim": 8,
        "dtype": "float64", "device": "cuda", "seed": 1, "repeat": 1, "sources": "x", "layers": 3,
        "ffn": 1, "positions": "none", "dropout": 0.5, "steps": 3, "batch": 3, "learning_rate": 0.5,
        "schedule": "linear", "padding": "length", "pooling": "positions",
        "warmup": 3, "weight_decay": 0.5, "clip": 0.5, "evaluate_every": 3,
    }  # fmt: skip
    assert changes.keys() == TrainingCell.model_fields.keys() - {"protocol"}
    ids = {TrainingCell(**{**dict(base), name: value}).id for name, value in changes.items()}
    assert len(ids | {base.id}) == len(changes) + 1


@pytest.mark.parametrize("length", [0, -1, 1.5, "8", True])
def test_lengths_are_whole_numbers_from_1(length: object):
    with pytest.raises(ValidationError, match="length"):
        SpeedCell.model_validate({"variant": "sdpa", "length": length})


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError, match="lenght"):
        SpeedCell.model_validate({"variant": "sdpa", "length": 8, "lenght": 8})


def test_every_cell_is_frozen():
    cell = SpeedCell(variant=Spec(name="sdpa"), length=8)
    with pytest.raises(ValidationError):
        cell.length = 9


def test_every_field_of_every_cell_is_described():
    for name, cls in CELLS.items():
        for field_name, field in cls.model_fields.items():
            assert field.description or field_name == "protocol", f"{name}.{field_name}"
