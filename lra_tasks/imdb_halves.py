r"""IMDb halves: whether two texts are the two halves of one film review, from the bytes of both.

    >>> for label, one, two in quad((b"A gem.", b"I wept!"), (b"So so.", b"I slept.")):
    ...     print(f"input  {one.decode()} | {two.decode()}  label  {label}")
    input  A gem. | I wept!  label  1
    input  A gem. | I slept  label  0
    input  So so. | I slept  label  1
    input  So so. | I wept!  label  0

Long Range Arena has nothing of the kind: this stands in for its Retrieval where ten gigabytes of papers
cannot be had. Reviews of IMDb (Maas et al. 2011, https://aclanthology.org/P11-1015) are cut at the end of
the sentence nearest to their middle. Two reviews of one sentiment, neighbours in the length of their second
halves, make four examples, two of each label, after the longer second half is trimmed to the shorter one. So
each half stands once beside its own and once beside another, and neither a half alone nor sentiment nor
length tells anything: what does is what the two texts speak of.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lra_tasks.bag import bags_guess
from lra_tasks.holdout import enough, shuffled
from lra_tasks.interface import PAD, Card, Examples, Split, Task, best_guess, pair
from lra_tasks.sources import Published
from lra_tasks.text import REVIEWS, decode, encode

SHORTEST = 64  # bytes of a half; what is shorter hardly speaks of anything
FOUR = 4  # examples of two reviews

# The end of a sentence with the quotes that close there, and what parts it from the next one.
_END = re.compile(rb"""[.!?]["')]*((?:\s|<br\s*/?>)+)(?=\S)""")

Halves = tuple[bytes, bytes]


@dataclass(frozen=True, kw_only=True)
class ImdbHalves(Task):
    """Halves of IMDb reviews: test pairs from the published test set, the others from its training set.

    The four pairs of two reviews stay in one split, so no review is in two. A half that stands in more than
    one review, in either set, is left out. Of smaller sizes than the whole, both sentiments and both labels
    keep their shares.

    Attributes:
        length: bytes kept of a half, from its head.
        seed: of which reviews of one length meet, which are held out, and which are left out where a size is
            smaller than its whole.
    """

    card: ClassVar[Card] = Card(
        title="IMDb halves",
        paper="https://aclanthology.org/P11-1015",
        description="Whether two texts are halves of one film review (1) or of two (0), from the bytes of "
        "both; a stand-in, not Long Range Arena.",
        output="pair",
        classes=2,
        vocabulary=257,
        length=2048,
        sizes={"train": 44_000, "validation": 4_000, "test": 20_000},
        floors={"majority": 0.5, "bag of bytes": 0.744, "length": 0.5},
        source=REVIEWS.repository,
        names=("two reviews", "one review"),
    )

    length: int = 2048
    train: int = 44_000
    validation: int = 4_000
    test: int = 20_000

    def published(self) -> Published:
        """IMDb on the public hub."""
        return REVIEWS

    def examples(self, split: Split) -> Examples:
        """The pairs of one split, four by four.

        Raises:
            FileNotFoundError: the reviews are not there; the message says how to get them.
            ValueError: more pairs are asked for than there are.
        """
        learning, testing = (_read(path, self.length) for path in self.files())
        held = testing if split == "test" else learning
        copies = Counter(half for part in (learning, testing) for halves, _ in part for half in halves)
        once = [review for review in held if max(copies[half] for half in review[0]) == 1]
        rng = np.random.default_rng([self.seed, split == "test"])
        meeting, sentiments = _neighbours(once, rng)
        order = shuffled(sentiments, rng)
        quads = {name: -(-getattr(self, name) // FOUR) for name in ("train", "validation", "test")}
        asked = ("test",) if split == "test" else ("train", "validation")
        wanted = FOUR * sum(quads[name] for name in asked)
        enough("IMDb halves", f"{' + '.join(asked)}, in fours,", wanted, FOUR * len(order), "pairs")
        # Validation from the beginning and training from the end: neither changes with the other's size.
        chosen = order[-quads["train"] :] if split == "train" else order[: quads[split]]
        rows = [example for place in chosen for example in quad(*(once[row][0] for row in meeting[place]))]
        return _examples(rows[: getattr(self, split)])

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """Nobody can.

        Raises:
            NotImplementedError: always; only the reviews themselves tell.
        """
        raise NotImplementedError("only the reviews tell which halves belong together")

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commoner label, how alike the bytes of both halves are, and both lengths."""
        halves = [pair(examples.sequence(row)) for row in range(len(examples))]
        lengths = np.array([(len(first), len(second)) for first, second in halves])
        clue = lengths @ np.array([self.length + 1, 1])
        return {
            **super().guesses(examples),
            "bag of bytes": bags_guess(examples, self.card.vocabulary),
            "length": best_guess(clue, examples.labels),
        }

    def spell(self, tokens: NDArray[np.integer]) -> str:
        """The text of a half."""
        return decode(tokens)


def split_in_two(review: bytes) -> Halves | None:
    """A review cut at the end of the sentence nearest to its middle; None if it is one sentence."""
    ends = list(_END.finditer(review))
    if not ends:
        return None
    nearest = min(ends, key=lambda end: abs(end.start(1) + end.end(1) - len(review)))
    return review[: nearest.start(1)], review[nearest.end(1) :]


def quad(one: Halves, other: Halves) -> list[tuple[int, bytes, bytes]]:
    """The four examples of two reviews, each a label and two texts; the longer second half is trimmed."""
    shorter = min(len(one[1]), len(other[1]))
    seconds = one[1][:shorter], other[1][:shorter]
    return [
        (1, one[0], seconds[0]),
        (0, one[0], seconds[1]),
        (1, other[0], seconds[1]),
        (0, other[0], seconds[0]),
    ]


def _read(path: Path, length: int) -> list[tuple[Halves, int]]:
    """The halves of all reviews of one file, each cut to `length`, with their sentiment."""
    table = pq.read_table(path, columns=["text", "label"])
    reviews: list[bytes] = table["text"].cast(pa.large_binary()).to_pylist()
    found: list[tuple[Halves, int]] = []
    for review, sentiment in zip(reviews, table["label"].to_pylist(), strict=True):
        halves = split_in_two(review.strip())
        if halves is not None and min(map(len, halves)) >= SHORTEST:
            found.append(((halves[0][:length], halves[1][:length]), sentiment))
    return found


def _neighbours(
    reviews: Sequence[tuple[Halves, int]], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows two by two, of one sentiment and next to each other in the length of their second halves.

    Returns the rows, (pairs of reviews, 2), and the sentiment of each two. Of an odd number one is left over.
    """
    lengths = np.array([len(halves[1]) for halves, _ in reviews])
    sentiments = np.array([sentiment for _, sentiment in reviews])
    found: list[NDArray[np.int64]] = []
    for sentiment in (0, 1):
        rows = rng.permutation(np.flatnonzero(sentiments == sentiment))
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        found.append(rows[: len(rows) // 2 * 2].reshape(-1, 2))
    return np.concatenate(found), np.repeat([0, 1], [len(part) for part in found])


def _examples(rows: Sequence[tuple[int, bytes, bytes]]) -> Examples:
    """Labels and texts as examples."""
    middle = np.array([PAD], dtype=np.uint8)
    parts = [part for _, first, second in rows for part in (encode(first), middle, encode(second))]
    lengths = [len(first) + 1 + len(second) for _, first, second in rows]
    labels = np.array([label for label, _, _ in rows], dtype=np.int64)
    return Examples(np.concatenate(parts), lengths, labels, output="pair")
