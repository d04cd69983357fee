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

MACHINE: tuple[str, ...] = ("dtype", "device", "machine")


@dataclass(frozen=True)
class Score:
    """One variant on one task, trained one way.

    Attributes:
        label: the variant, with what sets its training apart where trainings differ.
        accuracy: mean over the seeds with its t interval; for one seed Wilson's interval of its labels.
        rows: one a seed, failed ones included.
    """

    variant: str
    label: str
    accuracy: Estimate | None
    floor: float | None
    seeds: int
    failures: tuple[str, ...]
    left: int
    rows: tuple[Row, ...]

    def median(self, column: str) -> float | None:
        """The median over the seeds of a metric without interval."""
        metric = METRICS[column]
        known = [found.value for row in self.rows if (found := estimate(row, metric)) is not None]
        return statistics.median(known).value if known else None

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


def titled(task: str, track: str) -> str:
    """A task as a title names it, with the track where it has a name."""
    return f"{task}, track {track}" if track else task


def score(rows: Sequence[Row], apart: Sequence[str]) -> Score:
    """The score of rows that differ in seed and repetition alone; `apart` names what the label adds."""
    # Repetitions of one seed are one sample, not several.
    known: list[Estimate] = []
    for same in grouped(rows, ("seed",)).values():
        found = [one for row in same if (one := estimate(row, METRICS["accuracy"])) is not None]
        if len(found) == 1:
            known.append(found[0])
        elif found:
            known.append(statistics.over_repeats(found))
    accuracy = None
    if len(known) == 1:
        accuracy = known[0]
    elif known:
        accuracy = _within(statistics.mean([one.value for one in known]))
    variant = rows[0]["variant"]
    details = ", ".join(_word(column, rows[0][column]) for column in apart)
    return Score(
        variant=variant,
        label=f"{variant} [{details}]" if details else variant,
        accuracy=accuracy,
        floor=next((row["floor"] for row in rows if row["floor"] is not None), None),
        seeds=len(known),
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
    return ", ".join(found)
