"""What trainings come to: one score for each variant on each task, over the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports import statistics
from reports.frame import LEFT, Row
from reports.metrics import METRICS
from reports.palette import is_reference
from reports.statistics import Estimate
from reports.summary import RECIPE, differing, estimate, grouped, settle_machines
from reports.words import distinct, slug

# Fewer seeds say nothing of how far they scatter.
FEWEST = 3
# A training that ends no more than this above what one answer to all reaches has learned nothing. The highest
# floor is no such bound: who knows the root operator of a tree has learned something, if not to solve it.
NEAR_CHANCE = 0.02

MACHINE: tuple[str, ...] = ("dtype", "device", "machine")


@dataclass(frozen=True)
class Score:
    """One variant on one task, trained one way.

    Attributes:
        label: the variant, with what sets its training apart where trainings differ.
        accuracy: mean over the seeds with its t interval; for one seed Wilson's interval of its labels.
        deviation: sample standard deviation over the seeds; None of fewer than FEWEST.
        seeds: those with an accuracy.
        planned: all of them.
        at_chance: how many of those with an accuracy are not NEAR_CHANCE above that of one answer to all;
            None where a record does not say what that reaches.
        rows: one a seed, failed ones included.
    """

    variant: str
    label: str
    accuracy: Estimate | None
    deviation: float | None
    floor: float | None
    seeds: int
    planned: int
    at_chance: int | None
    failures: tuple[str, ...]
    left: int
    rows: tuple[Row, ...]

    def median(self, column: str) -> float | None:
        """The median over the seeds of a metric without interval."""
        metric = METRICS[column]
        known = [found.value for row in self.rows if (found := estimate(row, metric)) is not None]
        return statistics.median(known).value if known else None

    def mean(self, column: str) -> float | None:
        """The mean over the seeds of any number."""
        known = [float(row[column]) for row in self.rows if row["status"] == "ok" and row[column] is not None]
        return statistics.mean(known).value if known else None

    def first(self, column: str) -> float | None:
        """A column that all seeds share."""
        return next((row[column] for row in self.rows if row[column] is not None), None)

    @property
    def trouble(self) -> str:
        """What became of the seeds without a score, in words; "" if all have one."""
        words = [f"{self.failures.count(status)} {status}" for status in sorted(set(self.failures))]
        return ", ".join(words + ([f"{self.left} not run"] if self.left else []))


@dataclass(frozen=True)
class Board:
    """All scores on one task by one track, on one kind of machine, best first."""

    task: str
    track: str
    name: str
    conditions: str
    scores: tuple[Score, ...]

    @property
    def title(self) -> str:
        """The task, and the track where it has a name."""
        return titled(self.task, self.track)

    @property
    def floor(self) -> float | None:
        """The accuracy that needs no understanding."""
        return next((score.floor for score in self.scores if score.floor is not None), None)


def boards(rows: Sequence[Row]) -> list[Board]:
    """One board for each task, track and machine, by the task's name: no board mixes tracks."""
    training = settle_machines([row for row in rows if row["protocol"] == "training"])
    found: list[Board] = []
    names: dict[str, int] = {}
    for members in grouped(training, ("task", "track", *MACHINE)).values():
        task, track, dtype, device, machine = (members[0][column] for column in ("task", "track", *MACHINE))
        apart = differing(members, RECIPE)
        scores = [score(same, apart) for same in grouped(members, ("variant", *RECIPE)).values()]
        scores.sort(
            key=lambda s: (-(s.accuracy.value if s.accuracy else -1.0), not is_reference(s.label), s.label)
        )
        name = distinct("-".join(filter(None, (slug(task), slug(track), dtype, device))), names)
        conditions = f"{_recipe(members[0], apart)} · {dtype} · {machine or device}"
        conditions = f"track {track} · {conditions}" if track else conditions
        found.append(Board(task, track, name, conditions, tuple(scores)))
    return found


def tracks(boards: Sequence[Board]) -> list[list[Board]]:
    """The boards of one track on one kind of machine together."""
    found = dict[tuple[object, ...], list[Board]]()
    for board in boards:
        row = board.scores[0].rows[0]
        found.setdefault((board.track, *(row[column] for column in MACHINE)), []).append(board)
    return list(found.values())


def titled(task: str, track: str) -> str:
    """A task as a title names it, with the track where it has a name."""
    return f"{task}, track {track}" if track else task


def score(rows: Sequence[Row], apart: Sequence[str]) -> Score:
    """The score of rows that differ in seed and repetition alone; `apart` names what the label adds."""
    # Repetitions of one seed are one sample, not several.
    known: list[Estimate] = []
    seeds = grouped(rows, ("seed",)).values()
    for same in seeds:
        found = [one for row in same if (one := estimate(row, METRICS["accuracy"])) is not None]
        if len(found) == 1:
            known.append(found[0])
        elif found:
            known.append(statistics.over_repeats(found))
    values, accuracy = [one.value for one in known], known[0] if known else None
    if len(known) > 1:
        accuracy = _within(statistics.mean(values))
    chances = [row["chance"] for row in rows if row["status"] == "ok"]
    chance = None if None in chances or not chances else max(chances)
    variant = rows[0]["variant"]
    details = ", ".join(_word(column, rows[0][column]) for column in apart)
    return Score(
        variant=variant,
        label=f"{variant} [{details}]" if details else variant,
        accuracy=accuracy,
        deviation=statistics.deviation(values) if len(known) >= FEWEST else None,
        floor=next((row["floor"] for row in rows if row["floor"] is not None), None),
        seeds=len(known),
        planned=len(seeds),
        at_chance=None if chance is None else sum(one <= chance + NEAR_CHANCE for one in values),
        failures=tuple(row["status"] for row in rows if row["status"] not in ("ok", LEFT)),
        left=sum(row["status"] == LEFT for row in rows),
        rows=tuple(rows),
    )


def _within(found: Estimate) -> Estimate:
    """An accuracy is never outside 0 to 1, whatever t says of two seeds."""
    low = None if found.low is None else max(found.low, 0.0)
    high = None if found.high is None else min(found.high, 1.0)
    return Estimate(found.value, low, high, found.n)


def _word(column: str, value: object) -> str:
    if column == "causal":
        return "causal" if value else "not causal"
    return f"{column}={value}"


def _recipe(row: Row, apart: Sequence[str]) -> str:
    words = {
        "layers": "{} layers", "heads": "{} heads", "steps": "{} steps", "batch": "batch {}",
        "learning_rate": "learning rate {:g}",
    }  # fmt: skip
    found = [text.format(row[column]) for column, text in words.items() if column not in apart]
    # Ways of published code, which are not the usual ones.
    found += ["batches of the full length"] * (row["padding"] == "length" and "padding" not in apart)
    found += ["padding pooled too"] * (row["pooling"] == "positions" and "pooling" not in apart)
    found += [f"products in {row['autocast']}"] * (row["autocast"] != "no" and "autocast" not in apart)
    found += ["compiled"] * (row["compile"] and "compile" not in apart)
    return ", ".join(found)
