"""What cells will take follows from what cells like them took."""

from datetime import UTC, datetime

import pytest

from bench.planning import variant_card
from bench.prediction import FIRST_GUESS_S, Predictor
from bench.resolver import Resolver
from results.cell import Cell, MemoryCell, ReachCell, SpeedCell
from results.record import Memory, Record
from results.spec import Spec
from tests.results import build
from tests.results.build import ENVIRONMENT


def speed(length: int, name: str = "sdpa", **more: object) -> Cell:
    return SpeedCell.model_validate({"variant": Spec.parse(name), "length": length, **more})


def record(cell: Cell, wall_s: float, peak: int | None = None) -> Record:
    found = peak and Memory(
        peak_bytes=peak, saved_bytes=None, inputs_bytes=1, rss_peak_bytes=1, declared_saved_bytes=None
    )
    return Record(
        cell_id=cell.id,
        cell=cell,
        status="ok" if found else "timeout",
        reason=None if found else "slow",
        measurement=found or None,
        started_at=datetime.now(UTC),
        wall_s=wall_s,
        environment=ENVIRONMENT,
    )


def test_before_anything_is_known_there_is_a_guess():
    assert Predictor().seconds([speed(64), speed(128)]) == 2 * FIRST_GUESS_S
    search = ReachCell.model_validate({"variant": "sdpa", "limit": "time", "budget": 1.0})
    assert Predictor().seconds([search]) == 60.0


def test_what_was_measured_takes_as_long_again():
    predictor = Predictor([record(speed(64), 1.0), record(speed(4096), 9.0)])
    assert predictor.seconds([speed(4096, seed=1)]) == 9.0


def test_time_above_that_of_the_shortest_grows_as_it_did():
    known = [record(speed(n), 0.5 + 1e-7 * n**2) for n in (64, 4096, 8192)]
    # The shortest is nearly all base, so the two long ones say how it grows.
    assert Predictor(known).seconds([speed(16384)]) == pytest.approx(0.5 + 1e-7 * 16384**2, rel=0.01)


def test_what_is_hardly_more_than_the_shortest_grows_as_claimed():
    known = [record(speed(n), wall) for n, wall in ((256, 0.5), (512, 0.52), (1024, 0.6))]
    # A line through the noise of the first three would be far steeper.
    assert Predictor(known).seconds([speed(65536)]) == pytest.approx(0.5 + 0.02 * 64)


def test_noise_of_a_tiny_length_is_not_multiplied_by_the_square_of_the_lengths():
    sdpa = variant_card(Spec.parse("sdpa"), Resolver())
    assert sdpa.time_exponent == 2.0
    cards = {"sdpa": sdpa}
    predictor = Predictor([record(speed(1), 0.7), record(speed(1, "window"), 0.9)], cards)
    assert predictor.seconds([speed(127)]) == pytest.approx(0.7, abs=0.01)


def test_further_rounds_on_a_restless_machine_are_not_expected_of_others():
    cell = speed(1024)
    once, thrice = record(cell, 2.0), record(cell, 4.0)
    timed = build.speed().model_copy(update={"samples_s": 3 * [1.0], "round_ends": [1, 2, 3]})
    whole = timed.model_copy(update={"round_ends": None})
    predictor = Predictor([once.model_copy(update={"measurement": whole})])
    predictor.learn(thrice.model_copy(update={"measurement": timed}))
    assert predictor.seconds([cell]) == pytest.approx(2.0)


def test_what_ended_early_says_nothing_of_what_lasts_to_its_end():
    failed = record(speed(64), 0.1).model_copy(update={"status": "error"})
    assert Predictor([failed, record(speed(128), 3.0)]).seconds([speed(64)]) == pytest.approx(3.0, abs=0.01)


def test_more_samples_are_another_cell():
    predictor = Predictor([record(speed(64), 1.0), record(speed(64, samples=900), 21.0)])
    assert predictor.seconds([speed(64, seed=1)]) == 1.0


def test_another_variant_is_taken_for_an_average_one():
    predictor = Predictor([record(speed(64), 1.0), record(speed(128), 3.0)])
    assert predictor.seconds([speed(64, "linear")]) == 2.0


def test_a_search_is_taken_for_one_within_the_same_budget():
    def search(budget: float, limit: str = "time") -> Cell:
        return ReachCell.model_validate({"variant": "sdpa", "limit": limit, "budget": budget})

    predictor = Predictor([record(search(1.0), 4.0), record(search(100.0), 60.0)])
    assert predictor.seconds([search(1.0), search(100.0)]) == 64.0
    assert predictor.seconds([search(100.0, "memory")]) == 32.0


def test_what_is_compiled_is_another_call():
    predictor = Predictor([record(speed(64), 1.0), record(speed(64, compile=True), 21.0)])
    assert predictor.seconds([speed(64, seed=1)]) == 1.0


def test_memory_grows_as_it_did():
    cells = [MemoryCell(variant=Spec.parse("softmax"), length=n) for n in (1024, 2048, 4096)]
    known = [record(cell, 1.0, 4 * cell.length**2) for cell in cells[:2]]
    assert Predictor(known).peak_bytes(cells[2]) == pytest.approx(4 * 4096**2)
    assert Predictor(known).peak_bytes(speed(4096, "softmax")) == pytest.approx(4 * 4096**2)
    assert Predictor(known).peak_bytes(speed(4096, "linear")) is None
