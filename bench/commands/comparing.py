"""`attnbench compare`: a matrix of comparison cells for two variants, run and summed up."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import foreign
from bench.commands import running
from bench.commands.rows import Row
from bench.matrix import Matrix, Value
from bench.resolver import Outside, Resolver
from reports import statistics
from results.cell import ComparisonCell
from results.record import Record
from results.run import Run
from results.spec import Spec
from results.timing import Comparison

LENGTHS = (256, 512, 1024, 2048, 4096)
PASSES = ("fwd", "fwd_bwd")
TIMEOUT_S = 120.0


def matrix(
    names: Sequence[str], outside: Sequence[Outside], lengths: Sequence[int], shape: Mapping[str, Value]
) -> Matrix:
    """The comparison of two variants at these lengths, as a matrix.

    Raises:
        ValueError: not two variants, or a shape that is none.
    """
    specs = [Spec.parse(name) for name in names]
    named = {spec.name for spec in specs}
    specs = [e.spec for e in outside if e.spec.pairs or e.spec.name not in named] + specs
    if len(specs) != 2:
        given = ", ".join(map(str, specs)) or "none"
        raise ValueError(f"compare takes two variants, not {len(specs)} ({given}); one may come from --file")
    # Every call measures anew: the stamp keeps its records apart from those of earlier calls.
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    return Matrix.model_validate(
        {
            "name": f"compare-{specs[0].name}-{specs[1].name}-{stamp}",
            "description": f"{specs[0]} against {specs[1]}",
            "cell_timeout_s": TIMEOUT_S,
            "sweep": [
                {
                    "protocol": "comparison",
                    "baseline": {"variant": str(specs[0]), "against": str(specs[1]), **shape},
                    "axes": {"length": list(lengths), "pass": list(PASSES)},
                }
            ],
        }
    )


def compare(
    spec: Matrix, resolver: Resolver, outside: Sequence[Outside], root: Path
) -> tuple[Run, list[Record]]:
    """Run a comparison into a folder of its own."""
    run = Run.named(spec.name, root)
    made = foreign.plan(spec, resolver).plan
    # Samples of two sittings are not pairs of one, so nothing is resumed.
    then = "the same command starts a comparison of its own"
    return run, running.watched(run, made, spec, [entry.reference for entry in outside], then=then)


def rows(records: Sequence[Record]) -> list[Row]:
    """One row a length and pass: the ratio of times, first variant over second, with its interval."""
    found: list[Row] = []
    for record in records:
        cell = record.cell
        assert isinstance(cell, ComparisonCell)
        row: dict[str, object] = {
            "length": cell.length,
            "pass": cell.pass_,
            "status": record.status,
            "reason": record.reason,
        }
        if isinstance(record.measurement, Comparison):
            pairs = record.measurement.pairs_s
            ratio = statistics.paired_ratio(pairs)
            row |= {
                "ratio": ratio.value,
                "ratio_low": ratio.low,
                "ratio_high": ratio.high,
                "pairs": len(pairs),
                "variant_ms": statistics.median([ours for ours, _ in pairs]).value * 1e3,
                "against_ms": statistics.median([theirs for _, theirs in pairs]).value * 1e3,
            }
        found.append(row)
    return sorted(found, key=lambda row: (str(row["pass"]), int(str(row["length"]))))
