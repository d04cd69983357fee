"""How a run looks while it goes on: a live bar on a terminal, plain lines elsewhere. Always on stderr."""

from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from bench.commands.clock import clock
from bench.prediction import Predictor
from bench.pulse import Beat, felt, place
from results.cell import Cell, ComparisonCell, FidelityCell, ReachCell, TrainingCell
from results.record import Record


def describe(cell: Cell) -> str:
    """A cell in one line, for people."""
    causal = " causal" if cell.causal else ""
    if isinstance(cell, TrainingCell):
        return f"training {cell.variant}{causal} on {cell.task}, seed {cell.seed}"
    name = f"{cell.variant} against {cell.against}" if isinstance(cell, ComparisonCell) else str(cell.variant)
    where = "" if cell.device == "cpu" else f" {cell.device}"
    if isinstance(cell, FidelityCell):
        return f"fidelity {name}{causal} on {cell.inputs} inputs, N = {cell.length}, {cell.dtype}{where}"
    where += ", compiled" if cell.compile else ""
    at = f"within {cell.budget:g} {cell.unit}" if isinstance(cell, ReachCell) else f"N = {cell.length}"
    return f"{cell.protocol} {name}{causal}, {cell.scope} {cell.pass_}, {at}, {cell.dtype}{where}"


class _Counting:
    """What both displays keep: cells done, failed and left."""

    def __init__(self, predictor: Predictor) -> None:
        self.left: dict[str, Cell] = {}
        self.failed = 0
        self.total = 0
        self.predictor = predictor

    def planned(self, done: Sequence[Record], left: Sequence[Cell]) -> None:
        """See Watcher."""
        self.left = {cell.id: cell for cell in left}
        self.total = len(done) + len(left)

    def started(self, cell: Cell) -> None:
        """See Watcher."""

    def ended(self, record: Record) -> None:
        """See Watcher."""
        self.left.pop(record.cell_id, None)
        self.failed += record.measurement is None and record.status != "unsupported"

    def again(self, cell: Cell) -> None:
        """See Watcher."""
        self.left[cell.id] = cell

    def time_left(self) -> str:
        """Time left, in words."""
        return clock(self.predictor.seconds(self.left.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class Lines(_Counting):
    """One line a cell, for logs and pipes."""

    def __init__(self, console: Console, predictor: Predictor) -> None:
        super().__init__(predictor)
        self._console = console

    def planned(self, done: Sequence[Record], left: Sequence[Cell]) -> None:
        """Say what there is to do."""
        super().planned(done, left)
        self._say(f"{self.total} cells: {len(done)} done before, {len(left)} to measure")

    def ended(self, record: Record) -> None:
        """Say what became of one cell."""
        super().ended(record)
        # A cell that will be measured again does not count twice.
        place = self.total - len(self.left)
        reason = "" if record.reason is None else f": {record.reason}"
        self._say(
            f"[{place}/{self.total}] {record.status:<11} {describe(record.cell)}"
            f" ({record.wall_s:.1f} s; {self.failed} failed, {self.time_left()} left){reason}"
        )

    def said(self, words: str) -> None:
        """Say it."""
        self._say(words)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Live(ProgressColumn):
    """How far the training at hand is, by its pulse."""

    def render(self, task: Task) -> Text:
        """Empty between trainings, and before the first step."""
        path = task.fields["pulse"]
        beat = None if path is None else felt(path)
        return Text("" if beat is None else lively(beat))


def lively(beat: Beat) -> str:
    """A beat in words: step, loss, accuracy on validation and the time that is left."""
    loss = "" if beat.loss is None else f", loss {beat.loss:.3g}"
    seen = "" if beat.accuracy is None else f", validation {beat.accuracy:.1%}"
    return f"step {beat.step}/{beat.steps}{loss}{seen}, {clock(beat.left_s)} left"


class Bar(_Counting):
    """A bar with counts, time left and the cell at hand; cells without a measurement stay above it."""

    def __init__(self, console: Console, predictor: Predictor) -> None:
        super().__init__(predictor)
        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[red]{task.fields[failed]} failed[/red]"),
            TextColumn("{task.fields[left]} cells, {task.fields[time]} left"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            Live(),
            console=console,
            refresh_per_second=2,  # a display must not disturb what is measured beside it
        )
        self._task = self._progress.add_task("", total=None, failed=0, left=0, time="?", pulse=None)

    def planned(self, done: Sequence[Record], left: Sequence[Cell]) -> None:
        """Set the bar to what is done already."""
        super().planned(done, left)
        self._progress.update(self._task, total=self.total)
        self._show()

    def started(self, cell: Cell) -> None:
        """Name the cell at hand."""
        pulse = place(cell) if isinstance(cell, TrainingCell) else None
        self._progress.update(self._task, description=escape(describe(cell)), pulse=pulse)

    def ended(self, record: Record) -> None:
        """Move on; keep a line about a cell without a measurement."""
        super().ended(record)
        if record.reason is not None:
            self._progress.console.print(
                f"{record.status}: {describe(record.cell)}: {record.reason}", markup=False, highlight=False
            )
        self._show()

    def said(self, words: str) -> None:
        """Keep it above the bar."""
        self._progress.console.print(words, markup=False, highlight=False)

    def again(self, cell: Cell) -> None:
        """One more to do."""
        super().again(cell)
        self._show()

    def _show(self) -> None:
        self._progress.update(
            self._task,
            completed=self.total - len(self.left),
            failed=self.failed,
            left=len(self.left),
            time=self.time_left(),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()


def display(console: Console, predictor: Predictor) -> Lines | Bar:
    """The display that fits where the output goes; the predictor knows how long cells take."""
    return Bar(console, predictor) if console.is_terminal else Lines(console, predictor)
