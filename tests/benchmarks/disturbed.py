"""`python -m tests.benchmarks.disturbed`: a run that is disturbed in its middle, beside one that is not.

The same cells are measured twice, each time in a run of a few minutes. In the middle of the second one
other processes burn all cores for a while. Cells that were measured meanwhile must be told from the rest and
measured again, or count by their calls before and behind it; and what stands in the end be what the
undisturbed run says: of each setting the median over its repetitions, which lie spread over the run, as the
reports show it. How far the repetitions of the undisturbed run lie apart is said beside it: no run can be
nearer to another than to itself.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.environment import environment
from results.cell import SpeedCell
from results.record import Record
from results.run import Run
from results.timing import Speed

# How far the final median of a setting may lie from that of the undisturbed run.
BAR = 0.07
# A cell that met less of the fire than this may have met it outside of its clock.
OVERLAP_S = 1.0
MATRIX = """
name = "disturbed"
variants = ["sdpa", "window", "longformer", "bigbird", "block_local", "linformer", "nystromformer", "linear"]
[[sweep]]
protocol = "speed"
baseline = {heads = 8, head_dim = 64, seconds = %(seconds)s, samples = 9}
axes = {length = %(lengths)s, pass = ["fwd", "fwd_bwd"], repeat = %(repeats)s}
"""

# What tells the settings of this matrix apart, and their repetitions' medians, seconds.
Setting = tuple[str, int, str]
Medians = dict[Setting, list[float]]


def run(folder: Path, name: str, *, disturb: tuple[float, float] | None) -> tuple[Run, float, list[datetime]]:
    """Measure the matrix; if asked burn all cores from (after, for) seconds. Returns when it was burnt."""
    command = [sys.executable, "-m", "bench.cli", "run", "matrix.toml", "--run", name]
    start, burnt = time.monotonic(), list[datetime]()
    with subprocess.Popen(
        command, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as runner:
        if disturb is not None:
            time.sleep(disturb[0])
            burnt.append(datetime.now(UTC))
            burn = f"import time; end = time.time() + {disturb[1]}\nwhile time.time() < end: pass"
            fires = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(environment("cpu").cores)]
            for fire in fires:
                fire.wait()
            burnt.append(datetime.now(UTC))
        runner.wait()
    return Run(folder / "results" / name), time.monotonic() - start, burnt


def overlap(record: Record, burnt: Sequence[datetime]) -> float:
    """How many seconds of a cell lay within the fire."""
    start, end = record.started_at.timestamp(), record.started_at.timestamp() + record.wall_s
    return min(end, burnt[1].timestamp()) - max(start, burnt[0].timestamp())


def partly(record: Record) -> bool:
    """Whether some of the calls of a cell do not count, which is as good as trying it again."""
    return isinstance(record.measurement, Speed) and not all(record.measurement.quiet or (True,))


def medians(run: Run) -> Medians:
    """Of each setting the medians of its repetitions; what stayed contaminated counts for nothing."""
    found: Medians = defaultdict(list)
    for record in run.latest().values():
        if isinstance(record.measurement, Speed) and record.status == "ok":
            assert isinstance(record.cell, SpeedCell)
            setting = (str(record.cell.variant), record.cell.length, record.cell.pass_)
            found[setting].append(median(record.measurement.counted_s))
    return found


def said(sizes: Iterable[float]) -> str:
    """Deviations in words."""
    known = sorted(abs(size) for size in sizes)
    nine = known[int(0.9 * len(known))]
    return f"middle {median(known):.1%}, nine tenths within {nine:.1%}, worst {known[-1]:.1%}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure twice; 0 if the disturbed cells were seen and all final medians are within the bar."""
    parser = argparse.ArgumentParser(prog="disturbed", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.4, help="timed seconds of a cell")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024], metavar="N")
    parser.add_argument("--repeats", type=int, default=7, help="cells of each setting, spread over the run")
    parser.add_argument("--for", dest="burn", type=float, default=20.0, help="seconds of the disturbance")
    options = parser.parse_args(arguments)
    fields = vars(options) | {"repeats": list(range(options.repeats))}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "matrix.toml").write_text(MATRIX % fields)
        quiet, took, _ = run(folder, "quiet", disturb=None)
        print(f"undisturbed: {took:.0f} s, {dict(quiet.counts())}", flush=True)
        after = (took - options.burn) / 2
        beside, took, burnt = run(folder, "disturbed", disturb=(after, options.burn))
        print(
            f"disturbed from {after:.0f} s on for {options.burn:.0f} s: {took:.0f} s, {dict(beside.counts())}"
        )
        attempts = list(beside.store.read())
        doubted = {record.cell_id for record in attempts if record.status == "contaminated" or partly(record)}
        hit = {record.cell_id for record in attempts if overlap(record, burnt) > OVERLAP_S}
        ours, theirs = medians(beside), medians(quiet)
    seen = f"{len(hit & doubted)} of them were seen, {len(doubted)} in all"
    print(f"{len(hit)} cells were measured in the fire; {seen}")
    for key in hit:
        first = next(record for record in attempts if record.cell_id == key)
        print(f"  {first.cell.variant} {getattr(first.cell, 'length', 0)}: {first.reason}")
    spread = said(one / median(found) - 1 for found in theirs.values() for one in found)
    print(f"repetitions of the undisturbed run against their median: {spread}")
    ratios = {key: median(ours[key]) / median(found) - 1 for key, found in theirs.items() if ours[key]}
    print(f"final medians against the undisturbed run: {said(ratios.values())}")
    far = {key: ratio for key, ratio in ratios.items() if abs(ratio) > BAR}
    for (variant, length, passes), ratio in far.items():
        print(f"NOT MET: {variant} at {length}, {passes}: {ratio:+.1%}, bar {BAR:.0%}")
    return int(bool(far or hit - doubted or not hit))


if __name__ == "__main__":
    sys.exit(main())
