import pytest
from pydantic import TypeAdapter, ValidationError

from results.cell import CELLS, Cell, ComparisonCell, MemoryCell, SpeedCell, TrainingCell
from results.spec import Spec
from results.tracks import TRACKS

READ = TypeAdapter[Cell](Cell)


def test_identity_survives_json_and_ignores_the_order_of_keys():
    cell = SpeedCell.model_validate({"variant": "window(left=1, right=2)", "length": 8, "pass": "fwd_bwd"})
    other = SpeedCell.model_validate({"pass": "fwd_bwd", "length": 8, "variant": "window(right=2, left=1)"})
    assert READ.validate_json(cell.model_dump_json()).id == cell.id == other.id


def test_identity_is_the_same_on_every_machine():
    # Frozen values: if one changes, every record on disk becomes an orphan. Then raise SCHEMA_VERSION.
    layer = {"variant": "window(left=1)", "length": 8, "scope": "layer", "pass": "fwd_bwd"}
    sdpa = {"variant": "sdpa", "length": 8}
    assert SpeedCell.model_validate(sdpa).id == "e655bd69cf440245"
    assert SpeedCell.model_validate(layer).id == "5a94678d9cc036da"
    assert MemoryCell.model_validate(sdpa).id == "d8be095b0977acc7"
    assert ComparisonCell.model_validate({**sdpa, "against": "linear"}).id == "493f6b7e5e353052"
    assert TrainingCell.model_validate({"variant": "sdpa", "task": "recall"}).id == "89067da01ffd7c0d"


@pytest.mark.parametrize("cls", [SpeedCell, MemoryCell, ComparisonCell])
def test_fields_that_came_later_change_identity_where_they_are_used(cls: type[SpeedCell]):
    base = {"variant": "sdpa", "length": 8, **({"against": "linear"} if cls is ComparisonCell else {})}
    model = {**base, "scope": "model"}
    points = [
        base, {**base, "compile": True}, {**base, "pass": "step"}, model, {**model, "layers": 3},
        {**model, "ffn": 3}, {**model, "compile": True},
    ]  # fmt: skip
    assert len({cls.model_validate(point).id for point in points}) == len(points)
    assert cls.model_validate({**base, "compile": False, "layers": None}).id == cls.model_validate(base).id
    assert cls.model_validate({**model, "layers": 2, "ffn": 128}).id == cls.model_validate(model).id


def test_identity_survives_json_with_fields_that_came_later():
    cell = SpeedCell.model_validate({"variant": "sdpa", "length": 8, "scope": "model", "compile": True})
    assert READ.validate_json(cell.model_dump_json()).id == cell.id


@pytest.mark.parametrize(
    ("point", "complaint"),
    [
        ({"layers": 2}, 'layers: scope = "core" has none, not 2'),
        ({"scope": "layer", "ffn": 64}, 'ffn: scope = "layer" has none, not 64'),
        ({"scope": "model", "layers": None}, 'layers: scope = "model" needs'),
        ({"pass": "step", "dtype": "float16"}, "AdamW step needs float32"),
        ({"pass": "steps"}, "pass"),
    ],
)
def test_points_that_mean_nothing_are_refused(point: dict[str, object], complaint: str):
    with pytest.raises(ValidationError, match=complaint):
        SpeedCell.model_validate({"variant": "sdpa", "length": 8, **point})


def test_every_field_but_none_changes_identity():
    base = TrainingCell(variant=Spec(name="sdpa"), task=Spec(name="recall"))
    changes: dict[str, object] = {
        "variant": Spec(name="linear"), "task": Spec(name="text"), "causal": True, "heads": 8, "head_dim": 8,
        "dtype": "float64", "device": "cuda", "seed": 1, "repeat": 1, "sources": "x", "track": "mine",
        "layers": 3, "ffn": 1, "positions": "none", "dropout": 0.5, "steps": 3, "batch": 3,
        "learning_rate": 0.5, "schedule": "linear", "padding": "length", "pooling": "positions",
        "warmup": 3, "weight_decay": 0.5, "epsilon": 0.5, "clip": 0.5, "evaluate_every": 3,
        "batching": "buckets", "autocast": "bfloat16", "compile": True,
    }  # fmt: skip
    assert changes.keys() == TrainingCell.model_fields.keys() - {"protocol"}
    needs = {"compile": {"padding": "length"}}
    ids = {TrainingCell(**{**dict(base), **needs.get(n, {}), n: value}).id for n, value in changes.items()}
    assert len(ids | {base.id}) == len(changes) + 1


def test_a_cycle_has_room_for_its_warm_up():
    point = {"variant": "sdpa", "task": "recall", "schedule": "one_cycle", "steps": 10}
    assert TrainingCell.model_validate({**point, "warmup": 10}).warmup == 10
    with pytest.raises(ValidationError, match="warmup = 11 is longer than one cycle of steps = 10"):
        TrainingCell.model_validate({**point, "warmup": 11})


def small(**fields: object) -> TrainingCell:
    promised = {"variant": "sdpa", "task": "recall", "track": "lra-small", "steps": 9, "warmup": 3}
    return TrainingCell.model_validate({**promised, **TRACKS["lra-small"], **fields})


def test_a_track_is_what_it_promises():
    assert small(steps=5000, batch=4, warmup=1000, evaluate_every=50, seed=2).track == "lra-small"
    for name, value in {"dropout": 0.2, "positions": "rotary", "epsilon": 1e-8, "clip": 1.0}.items():
        with pytest.raises(ValidationError, match=f"the track lra-small has {name} = "):
            small(**{name: value})
        assert small(**{name: value}, track="mine").track == "mine"
        assert small(**{name: value}, track="").track == ""


def test_tracks_promise_what_cells_have():
    for track, promised in TRACKS.items():
        assert promised.keys() < TrainingCell.model_fields.keys(), track
        point = {"variant": "sdpa", "task": "recall", "steps": 9, "warmup": 3, **promised, "track": track}
        assert TrainingCell.model_validate(point).track == track


@pytest.mark.parametrize("track", ["lra small", "-", "a/b", "Größe"])
def test_the_name_of_a_track_may_stand_in_a_file_name(track: str):
    with pytest.raises(ValidationError, match="track"):
        small(track=track)


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


def test_fidelity_is_of_the_core_with_gradients():
    cell = READ.validate_python({"protocol": "fidelity", "variant": "sdpa", "length": 8, "inputs": "sink"})
    assert (cell.scope, cell.pass_) == ("core", "fwd_bwd")
    assert READ.validate_json(cell.model_dump_json()) == cell
    for field, value in (("scope", "layer"), ("pass", "fwd"), ("inputs", "smooth")):
        with pytest.raises(ValidationError, match=field):
            READ.validate_python({"protocol": "fidelity", "variant": "sdpa", "length": 8, field: value})
