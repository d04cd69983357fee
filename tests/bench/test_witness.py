"""Calls beside which the machine was slow do not count, and a cell with too few others is tried again."""

import time

import pytest
import torch
from pydantic import ValidationError

from bench.disturbance import Judge, Usual, enough
from bench.witness import Witness
from results.calibration import Calibration
from results.record import Record
from results.timing import Speed
from tests.results import build

QUIET_S, SLOW_S = 27e-6, 32e-6


def reading(witness_s: list[float] | None, gemm: float = 2e11) -> Calibration:
    return Calibration(
        gemm_flops_per_s=(gemm, gemm), copy_bytes_per_s=(1.0, 1.0), foreign_load=0.0, witness_s=witness_s
    )


def witnessed(slow: set[int], calls: int = 20, gemm: float = 2e11) -> Calibration:
    """Readings beside so many calls, of which these, from 0 to `calls`, are slow."""
    return reading([SLOW_S if at in slow else QUIET_S for at in range(calls + 1)], gemm)


def record(found: Calibration, **fields: object) -> Record:
    calls = 1 if found.witness_s is None else len(found.witness_s) - 1
    speed = build.speed().model_dump() | {
        "samples_s": [1.0 + at for at in range(calls)],
        "calibration": found,
        **fields,
    }
    return build.record().model_copy(update={"measurement": Speed.model_validate(speed)})


def judge(*readings: Calibration) -> Judge:
    return Judge([record(one) for one in (*(witnessed(set()) for _ in range(5)), *readings)])


def speed_of(found: Record) -> Speed:
    assert isinstance(found.measurement, Speed)
    return found.measurement


def test_a_slow_witness_takes_the_calls_on_both_sides_of_it():
    quiet = Usual([witnessed(set())]).quiet(witnessed({3}, calls=6))
    assert quiet == [True, True, False, False, True, True]


def test_only_quiet_calls_count():
    judged = judge().judged(record(witnessed({0, 1})), last=False)
    assert (judged.status, judged.reason) == ("ok", None)
    assert speed_of(judged).quiet == [False, False] + 18 * [True]
    assert speed_of(judged).counted_s == [1.0 + at for at in range(2, 20)]
    assert len(speed_of(judged).samples_s) == 20


def test_a_product_before_or_behind_the_cell_does_not_speak_against_quiet_calls():
    assert judge().judged(record(witnessed({20}, gemm=1.5e11)), last=False).status == "ok"
    assert judge().judged(record(witnessed(set(range(8)), gemm=1.5e11)), last=True).status == "ok"


def test_a_cell_with_too_few_quiet_calls_is_tried_again():
    judged = judge().judged(record(witnessed(set(range(17)))), last=False)
    assert judged.status == "contaminated"
    assert judged.reason == (
        "beside 17 of 20 timed calls a short product took more than 28.4 us, where 27 are usual in this run"
    )


def test_at_the_last_try_all_calls_count_unless_the_machine_was_far_off():
    slow = set(range(17))
    judged = judge().judged(record(witnessed(slow, gemm=1.7e11)), last=True)
    assert (judged.status, speed_of(judged).quiet) == ("ok", None)
    assert judge().judged(record(witnessed(slow, gemm=1.5e11)), last=True).status == "contaminated"


def test_others_on_the_processors_are_seen_whatever_the_witness_says():
    busy = witnessed(set()).model_copy(update={"foreign_load": 0.5})
    assert judge().judged(record(busy), last=True).status == "contaminated"


@pytest.mark.parametrize(
    ("calls", "quiet", "suffices"),
    [(3, 3, True), (3, 2, False), (20, 6, True), (20, 5, False), (100, 24, False), (100, 25, True)],
)
def test_how_many_quiet_calls_are_enough(calls: int, quiet: int, suffices: bool):
    assert enough([at < quiet for at in range(calls)]) is suffices
    assert not enough(None)


def test_what_is_usual_is_told_by_cells_and_not_by_calls():
    # One restless cell of many calls among quiet ones of few.
    usual = Usual([*(witnessed(set(), calls=3) for _ in range(8)), reading(1000 * [SLOW_S])])
    assert usual.quiet(witnessed(set(), calls=3)) == [True] * 3
    assert usual.quiet(reading(4 * [SLOW_S])) == [False] * 3


def test_how_slow_a_witness_may_be_depends_on_how_much_the_best_vary():
    steady, shaky = (
        Usual([reading([QUIET_S * (1 + by * (at % 5))] * 3) for at in range(20)]) for by in (0.001, 0.03)
    )
    assert steady.quiet(reading([1.07 * QUIET_S] * 2)) == [False]
    assert shaky.quiet(reading([1.07 * QUIET_S] * 2)) == [True]
    assert shaky.quiet(reading([1.5 * QUIET_S] * 2)) == [False]


def test_a_judgement_that_changes_nothing_is_the_same_object():
    knows = judge()
    first = knows.judged(record(witnessed({0, 1})), last=False)
    assert knows.judged(first, last=False) is first


def test_calls_that_were_taken_for_quiet_are_judged_again_by_what_is_known_later():
    early = record(reading(21 * [SLOW_S]))
    alone = Judge([early])
    first = alone.judged(early, last=True)
    assert speed_of(first).quiet == 20 * [True]
    for _ in range(8):
        alone.learn(record(witnessed(set())))
    assert alone.judged(first, last=False).status == "contaminated"
    again = alone.judged(first, last=True)
    assert (again.status, speed_of(again).quiet) == ("ok", None)


def test_without_witnesses_cells_are_judged_by_the_product_beside_them():
    knows = judge()
    assert knows.judged(record(reading(None)), last=False).status == "ok"
    assert knows.judged(record(reading(None, gemm=1e11)), last=False).status == "contaminated"


def test_a_record_says_so_only_of_the_calls_that_it_has():
    with pytest.raises(ValidationError, match="2 of 2 calls were quiet, and 3 were timed"):
        record(witnessed(set(), calls=3), quiet=[True, True])
    with pytest.raises(ValidationError, match="0 of 3 calls were quiet"):
        record(witnessed(set(), calls=3), quiet=3 * [False])


def test_a_witness_reads_what_a_product_takes(monkeypatch: pytest.MonkeyPatch):
    # The clock of five calls: one that finds cold caches, one that is held up, three that are alike.
    ticks = iter([0.0, 9.0, 10.0, 11.0, 20.0, 21.5, 30.0, 31.2, 40.0, 45.0])
    witness = Witness("cpu")
    assert witness.readings_s == []
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    witness.look()
    assert witness.readings_s == [1.5]


def test_a_witness_gives_every_thread_as_much_to_do(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    product = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b, out: (sizes.append(len(a)), product(a, b, out=out))[1])
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        Witness("cpu")
    assert sizes[0] * 3 == sizes[-1]


def test_on_cuda_there_is_none():
    witness = Witness("cuda")
    witness.look()
    assert witness.readings_s is None
