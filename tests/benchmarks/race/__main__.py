"""`python -m tests.benchmarks.race`: the options, the progress, and the exit status."""

import argparse
import os
import resource
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from results.spec import Spec
from tests.benchmarks.race import verdict
from tests.benchmarks.race.apart import apart
from tests.benchmarks.race.dense import Share, share
from tests.benchmarks.race.duel import Duel, Effort, Pass, race
from tests.benchmarks.race.duels import DUELS

LENGTHS = (1024, 4096, 16384)
CSV = Path("reports/out/race.csv")

# Shorter sequences are mostly ends, where a window is no window.
SHARE_FROM = 4096


def main(arguments: Sequence[str] | None = None, duels: Sequence[Duel] = DUELS) -> int:
    """Race; 0 if all bars are met, 1 if not."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    # The peers were written for older libraries; what these warn of is not ours to mend.
    warnings.simplefilter("ignore")
    known = {_name(duel) for duel in duels}
    unknown = set(options.only) - known
    if unknown:
        print(f"no peer for {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    chosen = [duel for duel in duels if not options.only or _name(duel) in options.only]
    rows: list[verdict.Row] = []
    try:
        verdict.write(rows, options.csv)
    except OSError as error:
        print(f"cannot write --csv {options.csv}: {error}", file=sys.stderr)
        return 2
    total, start = len(chosen) * len(options.lengths) * 2, time.monotonic()
    print(verdict.heading())
    for duel in chosen:
        for length in options.lengths:
            for passes in ("fwd", "fwd_bwd"):
                rows.append(_row(duel, length, passes, Effort(pairs=options.samples)))
                print(verdict.line(rows[-1]), flush=True)
                # After every row, so that a race broken off leaves what it has.
                verdict.write(rows, options.csv)
                print(f"[{len(rows)}/{total}, {time.monotonic() - start:.0f} s]", file=sys.stderr, flush=True)
    print(*verdict.summary(rows), sep="\n")
    complaints = verdict.complaints(rows)
    if duels is DUELS and (not options.only or "window" in options.only):
        for length in (length for length in options.lengths if length >= SHARE_FROM):
            found = _share(length, Effort(pairs=options.samples))
            print(found.line(), flush=True)
            complaints += [found.complaint()] if found.complaint() else []
    print(*(f"NOT MET: {complaint}" for complaint in complaints), sep="\n")
    return 1 if complaints else 0


def _row(duel: Duel, length: int, passes: Pass, effort: Effort) -> verdict.Row:
    """One row, in a process of its own. If that ends early nobody knows whose fault it was: it is ours."""
    try:
        return apart(race, duel, length, passes, effort)
    except ChildProcessError as error:
        return verdict.Row(duel.label(length), duel.peer, length, passes, note=str(error), failed="ours")


def _share(length: int, effort: Effort) -> Share:
    """The share of a length, likewise."""
    try:
        return apart(share, length, effort)
    except ChildProcessError as error:
        return Share(length, None, str(error))


def limit_memory() -> None:
    """Leave a quarter of the free memory to others: a peer that wants more gets an error, not the machine.

    Some peers keep an outer product a position, tens of GiB at 16,384 positions.
    """
    about = Path("/proc/meminfo")
    if not about.exists():
        return
    words = dict(line.split(":") for line in about.read_text().splitlines())
    free = int(words["MemAvailable"].split()[0]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (free * 3 // 4, hard))


def _name(duel: Duel) -> str:
    return Spec.parse(duel.variant(LENGTHS[0])).name


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, not {text!r}")
    return int(text)


def _threads(text: str) -> int:
    count, cores = _count(text), os.cpu_count() or 1
    if count > cores:
        raise argparse.ArgumentTypeError(f"must be at most {cores}, the cores of this machine, not {count}")
    return count


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="race", description="Race every variant against the public implementation of its paper."
    )
    parser.add_argument("--lengths", type=_count, nargs="+", default=LENGTHS, metavar="N")
    parser.add_argument("--only", action="append", default=[], metavar="VARIANT", help="may be repeated")
    parser.add_argument(
        "--samples", type=_count, default=Effort().pairs, help="pairs of calls a row, at least"
    )
    parser.add_argument("--threads", type=_threads, default=2)
    parser.add_argument("--csv", type=Path, default=CSV)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    # The profiler that counts memory would say on stderr, for every row, that it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    limit_memory()
    sys.exit(main())
