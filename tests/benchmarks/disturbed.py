"""`python -m tests.benchmarks.disturbed`: a run that is disturbed in its middle, beside one that is not.

The same cells are measured twice, each time in a run of a few minutes. In the middle of the second one
other processes burn all cores for a while. Cells that were measured meanwhile must be told from the rest and
measured again, and what stands in the end be what the undisturbed run says.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.environment import environment
from results.record import Record, Speed
from results.run import Run

# How far a cell's final median may lie from that of the undisturbed run.
BAR = 0.07
# A cell that met less of the fire than this may have met it outside of its clock.
OVERLAP_S = 1.0
MATRIX = """
name = "disturbed"
variants = ["sdpa", "window", "longformer", "bigbird", "block_local", "linformer", "nystromformer", "linear"]
[[sweep]]
protocol = "speed"
baseline = {heads = 8, head_dim = 64, seconds = %(seconds)s, samples = 15}
axes = {length = [1024, 2048, 4096], pass = ["fwd", "fwd_bwd"]}
"""


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


def middle(record: Record) -> float:
    """The median of its samples, seconds."""
    assert isinstance(record.measurement, Speed)
    return median(record.measurement.samples_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure twice; 0 if the disturbed cells were seen and all final medians are within the bar."""
    parser = argparse.ArgumentParser(prog="disturbed", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds of a cell")
    parser.add_argument("--for", dest="burn", type=float, default=20.0, help="seconds of the disturbance")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "matrix.toml").write_text(MATRIX % {"seconds": options.seconds})
        quiet, took, _ = run(folder, "quiet", disturb=None)
        print(f"undisturbed: {took:.0f} s, {dict(quiet.counts())}", flush=True)
        after = (took - options.burn) / 2
        beside, took, burnt = run(folder, "disturbed", disturb=(after, options.burn))
        print(
            f"disturbed from {after:.0f} s on for {options.burn:.0f} s: {took:.0f} s, {dict(beside.counts())}"
        )
        attempts = list(beside.store.read())
        doubted = {record.cell_id for record in attempts if record.status == "contaminated"}
        hit = {record.cell_id for record in attempts if overlap(record, burnt) > OVERLAP_S}
        ours, theirs = beside.latest(), quiet.latest()
        ratios = {key: middle(ours[key]) / middle(theirs[key]) - 1 for key in ours.keys() & theirs.keys()}
    far = {key: ratio for key, ratio in ratios.items() if abs(ratio) > BAR}
    seen = f"{len(hit & doubted)} of them were seen, {len(doubted)} in all"
    print(f"{len(hit)} cells were measured in the fire; {seen}")
    for key in hit:
        first = next(record for record in attempts if record.cell_id == key)
        print(f"  {first.cell.variant} {getattr(first.cell, 'length', 0)}: {first.reason}")
    sizes = sorted(abs(ratio) for ratio in ratios.values())
    print(
        f"final medians against the undisturbed run: middle {median(sizes):.1%}, "
        f"nine tenths within {sizes[int(0.9 * len(sizes))]:.1%}, worst {sizes[-1]:.1%}"
    )
    for key, ratio in far.items():
        cell, again = ours[key].cell, " (measured again)" if key in doubted else ""
        print(f"NOT MET: {cell.variant} at {getattr(cell, 'length', 0)}: {ratio:+.1%}, bar {BAR:.0%}{again}")
    return int(bool(far or hit - doubted or not hit))


if __name__ == "__main__":
    sys.exit(main())
