"""What becomes of doubted attempts when a command ends: some count after all, while nothing better is there.

An attempt is doubted early and on small grounds, as its cell may be tried again. If later tries meet a
machine that is no quieter, or the time is up, what was doubted for a product beside quiet calls is the best.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from bench.disturbance import Judge, Machine, machine
from results.record import Record


def unsettled(record: Record) -> bool:
    """Whether another try may come to something better than this, which counts for its cell now."""
    return record.status == "contaminated" or record.reinstated


def reinstated(
    attempts: Iterable[Record],
    judge: Judge,
    here: Sequence[Machine],
    is_ours: Callable[[str, int], bool],
) -> list[Record]:
    """Attempts that count after all, reinstated, one a cell at most.

    Args:
        attempts: of all commands, by their start.
        judge: who knows what is usual.
        here: the machines that he may judge of.
        is_ours: whether a cell, by its id and how often it was tried, is to be settled now; others are still
            measured elsewhere.
    """
    tries: dict[str, list[Record]] = defaultdict(list)
    for record in attempts:
        tries[record.cell_id].append(record)
    found: list[Record] = []
    for cell, made in tries.items():
        # A fault that came last is no disturbance.
        if any(one.witnessed for one in made) or made[-1].status not in ("ok", "contaminated"):
            continue
        if is_ours(cell, len(made)):
            doubted = (one for one in reversed(made) if one.status == "contaminated")
            local = (one for one in doubted if machine(one.cell.device, one.environment) in here)
            # The last of them: the more was known when it was made.
            judged = (judge.judged(one.reinstate(), left=0) for one in local)
            found += [one for one in judged if one.witnessed][:1]
    return found
