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

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lra_tasks.bag import bag_guess
from lra_tasks.holdout import copies_last, enough, shuffled
from lra_tasks.interface import Card, Examples, Split, Task
from lra_tasks.sources import Published

REVIEWS = Published(
    "stanfordnlp/imdb",
    ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
)


@dataclass(frozen=True, kw_only=True)
class Text(Task):
    """IMDb by bytes: the published test set, and the published training set split in two by the seed.

    The sizes take a part of what there is, with the classes as balanced as in the whole. Validation shares
    no review with training; a hundred reviews of the published test set do stand in the training set too.

    Attributes:
        length: bytes kept of a review, from its head.
        seed: of which reviews are held out, and which are left out where a size is smaller than its whole.
        validation_from: where validation is taken from. "test" is what Long Range Arena does and chooses
            the checkpoint by the test reviews; it is here for comparison with published numbers.
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
        floors={"majority": 0.5, "bag of bytes": 0.623},
        source=REVIEWS.repository,
        names=("negative", "positive"),
    )

    length: int = 4096
    train: int = 22_500
    validation: int = 2_500
    test: int = 25_000
    validation_from: Literal["train", "test"] = "train"

    def published(self) -> Published:
        """IMDb on the public hub."""
        return REVIEWS

    def examples(self, split: Split) -> Examples:
        """The reviews of one split.

        Raises:
            FileNotFoundError: the reviews are not there; the message says how to get them.
            ValueError: more of them are asked for than there are.
        """
        learning, testing = self.files()
        if split == "test" or (split == "validation" and self.validation_from == "test"):
            whole = _read(testing, self.length)
            enough("Text", split, getattr(self, split), len(whole), "reviews")
            order = shuffled(whole.labels, np.random.default_rng([self.seed, 1]))
            return whole.take(order[: getattr(self, split)])
        whole = _read(learning, self.length)
        held_out = self.validation if self.validation_from == "train" else 0
        sizes = "train + validation" if held_out else "train"
        enough("Text", sizes, self.train + held_out, len(whole), "reviews")
        order = shuffled(whole.labels, np.random.default_rng([self.seed, 0]))
        order = copies_last(order, [whole.sequence(row).tobytes() for row in range(len(whole))])
        return whole.take(order[: self.validation] if split == "validation" else order[-self.train :])

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest label, and what the bytes tell without their order."""
        return {**super().guesses(examples), "bag of bytes": bag_guess(examples, self.card.vocabulary)}

    def spell(self, tokens: NDArray[np.integer]) -> str:
        """The text."""
        return decode(tokens)


def encode(text: str | bytes) -> NDArray[np.uint8]:
    """The ids of a text: of each byte of its UTF-8 the value plus one, which fits: none is above 0xF4."""
    told = text.encode() if isinstance(text, str) else text
    return np.frombuffer(told, dtype=np.uint8) + np.uint8(1)


def decode(tokens: NDArray[np.integer]) -> str:
    """The text of ids, with a mark where bytes are no letter, as where one was cut in two.

    What cannot be printed, ends of lines included, is marked too.
    """
    text = (tokens - 1).astype(np.uint8).tobytes().decode(errors="replace")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


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
        np.concatenate(heads) + np.uint8(1),
        [len(head) for head in heads],
        table["label"].to_numpy(),
        output="sequence",
    )
