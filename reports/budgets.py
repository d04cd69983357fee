"""Error against budget: what a variant gains by a wider window, a higher rank, more features or landmarks.

A budget is an option that the run moves while all others stand still, or several that move as one, as
left and right of a window do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reports.charts import Chart, Series
from reports.statistics import Estimate
from reports.summary import Panel, Point
from reports.words import number, short
from results.spec import Scalar, Spec

ROUNDING = "Dotted: the same of SDPA, which errs by rounding alone."
# Where SDPA errs so much less than all others, its line would leave them no room: it is said instead.
FAR_BELOW = 1000.0

Pair = tuple[str, Scalar]


@dataclass(frozen=True)
class Budget:
    """One figure: its file name without suffix, what it shows, the same in words."""

    name: str
    chart: Chart
    alt: str


@dataclass(frozen=True)
class _Curve:
    """Points of one variant by rising value of what moves."""

    label: str
    options: tuple[str, ...]
    points: tuple[tuple[float, Point], ...]


def budgets(panel: Panel) -> list[Budget]:
    """A figure for each length at which an option of a variant moves and an error is known."""
    found = [_budget(panel, length) for length in panel.lengths]
    return [one for one in found if one is not None]


def _budget(panel: Panel, length: int) -> Budget | None:
    curves = _curves([point for point in panel.points if point.length == length])
    series = [
        Series(curve.label, curve.points[0][1].variant, known) for curve in curves if (known := _known(curve))
    ]
    if not series:
        return None
    failures = tuple(
        (curve.points[0][1].variant, curve.label, x, "zero" if point.estimate is not None else point.status)
        for curve in curves
        for x, point in curve.points
        if not _drawable(point.estimate)
    )
    names = {", ".join(curve.options) for curve in curves}
    x_label = f"{names.pop()} (option)" if len(names) == 1 else "value of the option that each line names"
    title = f"{panel.metric.label.capitalize()} against budget: {panel.inputs}, N = {short(length)}"
    floor, said = _floor(dict(panel.rounding()).get(length), series)
    notes = (f"Points: {panel.metric.derived}. {said}".strip(),)
    chart = Chart(
        title, panel.subtitle, x_label, panel.metric.head, tuple(series), failures, notes, floor=floor
    )
    return Budget(panel.name.replace("fidelity-", f"budget-{length}-", 1), chart, _alt(title, series))


def _floor(error: float | None, series: Sequence[Series]) -> tuple[tuple[tuple[float, float], ...], str]:
    """The line of SDPA's own error, and the sentence about it."""
    if error is None:
        return (), ""
    places = [x for one in series for x, _ in one.points]
    if min(found.value for one in series for _, found in one.points) > FAR_BELOW * error:
        return (), f"SDPA, which errs by rounding alone: {number(error)}."
    return ((min(places), error), (max(places), error)), ROUNDING


def _curves(points: Sequence[Point]) -> list[_Curve]:
    """All that moves, by label."""
    groups: dict[tuple[str, tuple[str, ...], tuple[Pair, ...]], list[tuple[float, Point]]] = {}
    for point in points:
        spec = Spec.parse(point.variant)
        for options, value in _movable(spec):
            rest = tuple(pair for pair in spec.pairs if pair[0] not in options)
            groups.setdefault((spec.name, options, rest), []).append((value, point))
    return [
        _Curve(
            f"{Spec(name=name, pairs=rest)}: {' = '.join(options)}",
            options,
            tuple(sorted(members, key=lambda member: member[0])),
        )
        for (name, options, rest), members in sorted(groups.items(), key=lambda item: str(item[0]))
        if len(members) > 1
    ]


def _movable(spec: Spec) -> Iterator[tuple[tuple[str, ...], float]]:
    """Each option that is a number above 0, and all of them together that are the same number."""
    together: dict[float, list[str]] = {}
    for name, value in spec.pairs:
        # A logarithmic axis has no place for 0, and True is no amount.
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            yield (name,), float(value)
            together.setdefault(float(value), []).append(name)
    for value, names in together.items():
        if len(names) > 1:
            yield tuple(names), value


def _known(curve: _Curve) -> tuple[tuple[float, Estimate], ...]:
    return tuple(
        (x, point.estimate)
        for x, point in curve.points
        if point.estimate is not None and point.estimate.value > 0
    )


def _drawable(found: Estimate | None) -> bool:
    return found is not None and found.value > 0


def _alt(title: str, series: Sequence[Series]) -> str:
    said = (
        f"{one.label}: " + ", ".join(f"{number(e.value)} at {short(x)}" for x, e in one.points) + "."
        for one in series
    )
    return f"{title}. " + " ".join(said)
