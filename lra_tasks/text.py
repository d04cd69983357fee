r"""Text: whether a film review is kind, from its bytes.

    >>> print(f"input  {render(encode('A gem.'))}\nids    {encode('A gem.')}\nlabel  1 (kind)")
    input    A       g   e   m   .
    ids    [ 66  33 104 102 110  47]
    label  1 (kind)

Reviews of IMDb (Maas et al. 2011, https://aclanthology.org/P11-1015) as Long Range Arena reads them (Tay et
al. 2020, https://arxiv.org/abs/2011.04006, section 2.2.2): the id of a byte of UTF-8 is its value plus one,
and of a long review the head is kept. Deviations: the length is fixed at 4096 bytes, where the paper takes
the best of four; and validation is held out of the training reviews, where it takes the test set.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lra_tasks.interface import Card, Examples, Split, Task
from lra_tasks.sources import locate

REPOSITORY = "stanfordnlp/imdb"
FILES = ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet")


@dataclass(frozen=True, kw_only=True)
class Text(Task):
    """IMDb by bytes: the published test set, and the published training set split in two by the seed.

    The sizes take a part of what there is, with the classes as balanced as in the whole. Validation shares
    no review with training; a hundred reviews of the published test set do stand in the training set too.

    Attributes:
        length: bytes kept of a review, from its head.
        seed: of which reviews are held out, and which are left out where a size is smaller than its whole.
    """

    card: ClassVar[Card] = Card(
        title="Text",
        paper="https://aclanthology.org/P11-1015",
        description="Whether a film review is negative (0) or positive (1), from its bytes.",
        output="sequence",
        classes=2,
        vocabulary=257,
        length=4096,
        sizes={"train": 22_500, "validation": 2_500, "test": 25_000},
        floors={"majority": 0.5},
        source=REPOSITORY,
    )

    length: int = 4096
    train: int = 22_500
    validation: int = 2_500
    test: int = 25_000

    def examples(self, split: Split) -> Examples:
        """The reviews of one split.

        Raises:
            FileNotFoundError: the reviews are not there; the message says how to get them.
            ValueError: more of them are asked for than there are.
        """
        learning, testing = locate(REPOSITORY, FILES)
        whole = _read(testing if split == "test" else learning, self.length)
        wanted = self.test if split == "test" else self.train + self.validation
        if wanted > len(whole):
            sizes = "test" if split == "test" else "train + validation"
            raise ValueError(f"Text: {sizes} is {wanted}, but there are only {len(whole)} reviews to take")
        order = _shuffled(whole.labels, np.random.default_rng([self.seed, split == "test"]))
        if split == "test":
            return whole.take(order[: self.test])
        # From the two ends, so that neither split changes with the size of the other; and what was published
        # more than once goes to the training end, so that they share nothing.
        texts = [whole.sequence(row).tobytes() for row in range(len(whole))]
        copies = Counter(texts)
        order = np.array(sorted(order, key=lambda row: copies[texts[row]] > 1))
        return whole.take(order[: self.validation] if split == "validation" else order[-self.train :])


def encode(text: str) -> NDArray[np.uint16]:
    """The ids of a text: of each byte of its UTF-8 the value plus one."""
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16) + np.uint16(1)


def render(tokens: NDArray[np.integer]) -> str:
    """A text in columns as wide as its ids are printed, bytes outside of ASCII as a dot."""
    return " ".join(
        f"{chr(token - 1) if 33 <= token <= 127 else '.' if token > 127 else ' ':>3}" for token in tokens
    )


def _read(path: Path, length: int) -> Examples:
    """All reviews of one file, cut to their first `length` bytes."""
    table = pq.read_table(path, columns=["text", "label"])
    text = table["text"].combine_chunks().cast(pa.large_binary())
    _, offsets, data = text.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64)[text.offset : text.offset + len(text) + 1]
    everything = np.frombuffer(data, dtype=np.uint8)
    heads = [everything[start : min(start + length, end)] for start, end in pairwise(starts)]
    return Examples(
        np.concatenate(heads).astype(np.uint16) + np.uint16(1),
        [len(head) for head in heads],
        table["label"].to_numpy(),
        output="sequence",
    )


def _shuffled(labels: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
    """All rows in a random order of which every stretch holds the classes in the proportion of the whole."""
    turn = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        turn[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(turn, kind="stable")
