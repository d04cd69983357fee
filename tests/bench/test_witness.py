"""Calls beside which the machine was slow do not count, and a cell with too few others is tried again."""

from random import Random
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bench import speed
from bench.disturbance import KNOWN, LEFT_TO_HEED, Judge, Usual
from bench.planning import Resolver
from bench.speed import MOST_ROUNDS, Timed
from bench.witness import Witness, enough
from results.calibration import Calibration
from results.cell import ReachCell, SpeedCell
from results.reach import Probe, Reach
from results.record import Record
from results.timing import Speed
from tests.results import build

QUIET_S, SLOW_S, LIMIT_S = 27e-6, 32e-6, 28.35e-6


def reading(witness_s: list[float] | None, gemm: float = 2e11) -> Calibration:
    return Calibration(
        gemm_flops_per_s=(gemm, gemm), copy_bytes_per_s=(1.0, 1.0), foreign_load=0.0, witness_s=witness_s
    )


def witnessed(slow: set[int], calls: int = 20, gemm: float = 2e11) -> Calibration:
    """Readings beside so many calls, of which these, from 0 to `calls`, are slow."""
    return reading([SLOW_S if at in slow else QUIET_S for at in range(calls + 1)], gemm)


def record(found: Calibration, **fields: object) -> Record:
    calls = 1 if found.witness_s is None else len(found.witness_s) - 1
    whole = build.speed().model_dump() | {
        "samples_s": [0.001 * (1 + at) for at in range(calls)],
        "calibration": found,
        **fields,
    }
    return build.record().model_copy(update={"measurement": Speed.model_validate(whole)})


def judge(*readings: Calibration) -> Judge:
    return Judge([record(one) for one in (*(witnessed(set()) for _ in range(KNOWN)), *readings)])


def speed_of(found: Record) -> Speed:
    assert isinstance(found.measurement, Speed)
    return found.measurement


def test_a_slow_witness_takes_the_calls_on_both_sides_of_it():
    quiet = Usual([witnessed(set())] * KNOWN).quiet(witnessed({3}, calls=6))
    assert quiet == [True, True, False, False, True, True]


def test_only_quiet_calls_count():
    judged = judge().judged(record(witnessed({0, 1})), left=1)
    assert (judged.status, judged.reason) == ("ok", None)
    assert speed_of(judged).quiet == [False, False] + 18 * [True]
    assert speed_of(judged).counted_s == [0.001 * (1 + at) for at in range(2, 20)]
    assert len(speed_of(judged).samples_s) == 20


def test_a_product_beside_the_cell_speaks_against_quiet_calls_at_its_first_tries():
    # The witness does not see who crowds the memory; and yet that may have been before or behind the calls.
    slow = record(witnessed({20}, gemm=0.95 * 2e11))
    judged = judge().judged(slow, left=LEFT_TO_HEED)
    assert (judged.status, judged.reason) == (
        "contaminated",
        "a matrix product beside it ran at 190 GFLOP/s, where 200 are usual in this run",
    )
    assert judge().judged(record(witnessed({20}, gemm=0.98 * 2e11)), left=LEFT_TO_HEED).status == "ok"
    for left in range(LEFT_TO_HEED):
        kept = judge().judged(slow, left=left)
        assert (kept.status, speed_of(kept).quiet) == ("ok", 19 * [True] + [False])
    assert judge().judged(record(witnessed(set(range(8)), gemm=1.5e11)), left=0).status == "ok"


def test_a_cell_with_too_few_quiet_calls_is_tried_again():
    judged = judge().judged(record(witnessed(set(range(17)))), left=1)
    assert judged.status == "contaminated"
    assert judged.reason == (
        "beside 17 of 20 timed calls a short product took more than 28.4 us, where 27 are usual in this run"
    )


def test_at_the_last_try_all_calls_count_unless_the_machine_was_far_off():
    slow = set(range(17))
    judged = judge().judged(record(witnessed(slow, gemm=1.7e11)), left=0)
    assert (judged.status, speed_of(judged).quiet) == ("ok", None)
    assert judge().judged(record(witnessed(slow, gemm=1.5e11)), left=0).status == "contaminated"


def test_others_on_the_processors_are_seen_whatever_the_witness_says():
    busy = witnessed(set()).model_copy(update={"foreign_load": 0.5})
    assert judge().judged(record(busy), left=0).status == "contaminated"


@pytest.mark.parametrize(
    ("calls", "quiet", "suffices"),
    [
        (1, 1, True),
        (1, 0, False),
        (3, 2, True),
        (3, 1, False),
        (7, 4, True),
        (7, 3, False),
        (20, 6, True),
        (20, 5, False),
        (100, 24, False),
        (100, 25, True),
    ],
)
def test_how_many_quiet_calls_are_enough(calls: int, quiet: int, suffices: bool):
    assert enough([at < quiet for at in range(calls)]) is suffices
    assert not enough(None)


def test_what_is_usual_is_told_by_cells_and_not_by_calls():
    # One restless cell of many calls among quiet ones of few.
    usual = Usual([*(witnessed(set(), calls=3) for _ in range(8)), reading(1000 * [SLOW_S])])
    assert usual.quiet(witnessed(set(), calls=3)) == [True] * 3
    assert usual.quiet(reading(4 * [SLOW_S])) == [False] * 3


def test_further_rounds_do_not_loosen_the_limit():
    # More than half of the cells were restless for a round, and quiet for a part of the second: of all their
    # readings the better quartile is as slow as before, and the best are not.
    # Rounds end by the seconds of their calls: the first, of slower calls, has the fewer.
    mixture = reading([*9 * [1.06 * QUIET_S], *12 * [QUIET_S]])
    knows = Judge([*5 * [record(witnessed(set()))], *8 * [record(mixture, round_ends=[8, 20])]])
    assert knows.witness_limit_s("cpu", build.record().environment) == pytest.approx(LIMIT_S)


def test_how_slow_a_witness_may_be_depends_on_how_much_the_best_vary():
    steady, shaky = (
        Usual([reading([QUIET_S * (1 + by * (at % 5)) for at in range(20)])] * KNOWN) for by in (0.001, 0.03)
    )
    assert steady.quiet(reading([1.07 * QUIET_S] * 2)) == [False]
    assert shaky.quiet(reading([1.07 * QUIET_S] * 2)) == [True]
    assert shaky.quiet(reading([1.5 * QUIET_S] * 2)) == [False]


def test_a_judgement_that_changes_nothing_is_the_same_object():
    knows = judge()
    first = knows.judged(record(witnessed({0, 1})), left=1)
    assert knows.judged(first, left=1) is first


def test_calls_that_were_taken_for_quiet_are_judged_again_by_what_is_known_later():
    early = record(reading(21 * [SLOW_S]))
    alone = Judge(KNOWN * [early])
    first = alone.judged(early, left=0)
    assert speed_of(first).quiet == 20 * [True]
    for _ in range(4 * KNOWN):
        alone.learn(record(witnessed(set())))
    assert alone.judged(first, left=1).status == "contaminated"
    again = alone.judged(first, left=0)
    assert (again.status, speed_of(again).quiet) == ("ok", None)


def test_before_enough_is_known_the_product_decides():
    slow = reading(21 * [SLOW_S], gemm=1e11)
    few = Judge([record(witnessed(set()))] * (KNOWN - 2))
    few.learn(record(slow))
    restless = record(witnessed({0, 1}))
    assert few.judged(restless, left=1) is restless
    assert few.judged(record(slow), left=0).status == "contaminated"


def test_what_is_said_of_calls_stays_while_they_are_enough():
    knows = judge()
    first = knows.judged(record(witnessed({0, 1})), left=1)
    # Witnesses turn out to vary more: what was slow would no longer be, and yet nothing is written anew.
    for _ in range(9 * KNOWN):
        knows.learn(record(reading([QUIET_S * (1 + 0.05 * (at % 5)) for at in range(21)])))
    assert knows.judged(record(witnessed({0, 1})), left=1).measurement != first.measurement
    assert knows.judged(first, left=1) is first


def test_readings_that_vary_by_themselves_raise_few_alarms():
    random = Random(0)
    for sigma in (0.005, 0.02, 0.05):
        cells = [reading([QUIET_S * random.gauss(1.0, sigma) for _ in range(21)]) for _ in range(200)]
        usual = Usual(cells)
        flags = [quiet for one in cells for quiet in usual.quiet(one) or ()]
        # The limit is as strict as disturbances need it: a quarter of the calls would be enough.
        assert sum(flags) > 0.9 * len(flags), sigma
        assert not any(usual.quiet(reading(21 * [1.3 * QUIET_S])) or ())


def test_long_calls_are_judged_by_the_products_around_them():
    long = record(witnessed(set(range(21)), calls=20), samples_s=20 * [2.0])
    judged = judge().judged(long, left=1)
    assert (judged.status, speed_of(judged).quiet) == ("ok", None)
    slow = record(witnessed(set(), gemm=1e11), samples_s=20 * [2.0])
    assert judge().judged(slow, left=0).status == "contaminated"


def test_a_search_leaves_no_calls_out_so_the_product_decides():
    slow = witnessed(set(range(8)), calls=15, gemm=1e11)
    probes = [
        Probe(
            length=16, fits=True, status="ok", samples_s=15 * [0.01], calibration=witnessed(set(), calls=15)
        ),
        Probe(length=32, fits=False, status="ok", samples_s=15 * [0.05], calibration=slow),
    ]
    cell = ReachCell.model_validate({"variant": "sdpa", "limit": "time", "budget": 40.0})
    found = build.record(cell, "oom").model_copy(
        update={"status": "ok", "reason": None, "measurement": Reach(reach=16, beyond=32, probes=probes)}
    )
    assert judge().judged(found, left=0).status == "contaminated"
    probes[1] = probes[1].model_copy(update={"calibration": witnessed(set(range(15)), calls=15)})
    quick = found.model_copy(update={"measurement": Reach(reach=16, beyond=32, probes=probes)})
    assert judge().judged(quick, left=1) is quick


def test_without_witnesses_cells_are_judged_by_the_product_beside_them():
    knows = judge()
    assert knows.judged(record(reading(None)), left=1).status == "ok"
    assert knows.judged(record(reading(None, gemm=1e11)), left=1).status == "contaminated"


def test_a_record_says_so_only_of_the_calls_that_it_has():
    with pytest.raises(ValidationError, match="2 of 2 calls were quiet, and 3 were timed"):
        record(witnessed(set(), calls=3), quiet=[True, True])
    with pytest.raises(ValidationError, match="0 of 3 calls were quiet"):
        record(witnessed(set(), calls=3), quiet=3 * [False])
    with pytest.raises(ValidationError, match="4 readings of a witness beside 2 calls, not 3"):
        record(witnessed(set(), calls=3), samples_s=[1.0, 2.0])


@pytest.mark.parametrize("found", [0.0, -1.0, float("nan"), float("inf")])
def test_no_machine_reads_like_that(found: float):
    with pytest.raises(ValidationError, match="witness_s"):
        witnessed(set()).model_validate(witnessed(set()).model_dump() | {"witness_s": [found, QUIET_S]})
    with pytest.raises(ValidationError, match="gemm_flops_per_s"):
        reading(None, gemm=found)


@pytest.mark.parametrize("ends", [[], [0, 3], [2], [1, 1, 3], [2, 1, 3], [1, 2]])
def test_rounds_end_in_order_and_with_the_last_call(ends: list[int]):
    with pytest.raises(ValidationError, match="rounds that end at"):
        record(witnessed(set(), calls=3), round_ends=ends)


def test_a_witness_stands_on_both_sides_of_every_call_and_outside_of_its_clock(
    monkeypatch: pytest.MonkeyPatch,
):
    done: list[str] = []
    timed_answer = speed.timed_answer

    def call(*given: Any) -> Timed:
        done.append("call")
        found = timed_answer(*given)
        done.append("its end")
        return found

    monkeypatch.setattr(speed, "timed_answer", call)
    monkeypatch.setattr(Witness, "_reading", lambda self: done.append("witness") or 1.0)
    cell = SpeedCell.model_validate({"variant": "sdpa", "length": 16, "samples": 2, "seconds": 0.0})
    speed.measure(cell, lambda dims: Resolver().build(cell.variant, dims, causal=False))
    whole = ["call", "its end"]
    # First the two calls before the clock, and the reading that does not count.
    assert done == [*whole, *whole, "witness", "witness", *whole, "witness", *whole, "witness"]


def times(
    monkeypatch: pytest.MonkeyPatch,
    taken: float,
    readings: list[float],
    seconds: float = 0.0,
    witness_limit_s: float | None = None,
) -> Speed:
    """What a cell comes to whose calls take so many seconds, beside these readings, the last one for good."""
    timed_answer, left = speed.timed_answer, [*readings]
    monkeypatch.setattr(speed, "timed_answer", lambda *given: timed_answer(*given)._replace(seconds=taken))
    monkeypatch.setattr(
        Witness, "look", lambda self: self.readings_s.append(left.pop(0) if len(left) > 1 else left[0])
    )
    cell = SpeedCell.model_validate({"variant": "sdpa", "length": 16, "samples": 8, "seconds": seconds})
    return speed.measure(
        cell, lambda dims: Resolver().build(cell.variant, dims, causal=False), witness_limit_s
    )


def test_a_cell_takes_its_calls_again_where_too_few_met_a_quiet_machine(monkeypatch: pytest.MonkeyPatch):
    # Disturbed for six readings: two of the first eight calls are quiet, and after the second round ten.
    found = times(monkeypatch, 0.01, [*6 * [SLOW_S], QUIET_S], witness_limit_s=LIMIT_S)
    assert (found.round_ends, len(found.samples_s)) == ([8, 16], 16)
    assert found.calibration.witness_limit_s == LIMIT_S
    judged = judge().judged(record(found.calibration, samples_s=found.samples_s), left=1)
    assert judged.status == "ok"
    assert speed_of(judged).quiet == 6 * [False] + 10 * [True]
    assert speed_of(judged).quiet_limit_s == pytest.approx(LIMIT_S)


def test_a_cell_whose_calls_are_enough_takes_them_once(monkeypatch: pytest.MonkeyPatch):
    found = times(monkeypatch, 0.01, [SLOW_S, SLOW_S, QUIET_S], witness_limit_s=LIMIT_S)
    assert (found.round_ends, len(found.samples_s)) == ([8], 8)


# Of each round of eight calls the first is quiet.
RESTLESS = [QUIET_S, QUIET_S, *7 * [SLOW_S]]


def test_a_machine_that_stays_restless_gets_so_many_rounds(monkeypatch: pytest.MonkeyPatch):
    readings = [*RESTLESS[:-1], *(MOST_ROUNDS - 1) * [QUIET_S, QUIET_S, *6 * [SLOW_S]]]
    found = times(monkeypatch, 0.01, readings, witness_limit_s=LIMIT_S)
    assert found.round_ends == [8 * (1 + at) for at in range(MOST_ROUNDS)]


def test_a_round_without_a_quiet_call_is_the_last(monkeypatch: pytest.MonkeyPatch):
    # The machine is in a state that lasts: the cell is tried again later.
    assert times(monkeypatch, 0.01, [QUIET_S, SLOW_S], witness_limit_s=LIMIT_S).round_ends == [8]
    assert times(monkeypatch, 0.01, RESTLESS, witness_limit_s=LIMIT_S).round_ends == [8, 16]


def test_every_round_of_short_calls_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speed, "MOST_SAMPLES", 10)
    readings = [*MOST_ROUNDS * [QUIET_S, QUIET_S, *8 * [SLOW_S]]]
    found = times(monkeypatch, 0.01, readings, seconds=60.0, witness_limit_s=LIMIT_S)
    assert len(found.samples_s) == MOST_ROUNDS * 10


@pytest.mark.parametrize("taken", [0.3, 0.6])
def test_long_calls_are_taken_once(monkeypatch: pytest.MonkeyPatch, taken: float):
    assert times(monkeypatch, taken, RESTLESS, witness_limit_s=LIMIT_S).round_ends == [8]


def test_where_nothing_is_known_of_the_machine_calls_are_taken_once(monkeypatch: pytest.MonkeyPatch):
    found = times(monkeypatch, 0.01, RESTLESS)
    assert (found.round_ends, found.calibration.witness_limit_s) == ([8], None)


def test_what_a_run_knows_of_its_witness_goes_to_the_next_cell():
    where = build.record().environment
    assert Judge([record(witnessed(set()))] * (KNOWN - 1)).witness_limit_s("cpu", where) is None
    assert judge().witness_limit_s("cpu", where) == pytest.approx(LIMIT_S)
    assert judge().witness_limit_s("cuda", where) is None


def test_a_witness_reads_what_a_product_takes(monkeypatch: pytest.MonkeyPatch):
    # The clock of five calls: one that finds cold caches, one that is held up, three that are alike.
    ticks = iter([0.0, 9.0, 10.0, 11.0, 20.0, 21.5, 30.0, 31.2, 40.0, 45.0])
    witness = Witness("cpu")
    assert witness.readings_s == []
    monkeypatch.setattr("bench.witness.perf_counter", lambda: next(ticks))
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
