r"""Retrieval: whether one of two papers cites the other, from the bytes of both.

    >>> from lra_tasks.text import encode
    >>> first, second = encode("Parsing with LSTMs"), encode("LSTM")
    >>> tokens = np.concatenate((first, [PAD], second))
    >>> print(Retrieval().picture(tokens, np.array([1])))
    first  Parsing with LSTMs
    second LSTM
    label  1 (cited)

Papers of the ACL Anthology Network (Radev et al. 2013, https://doi.org/10.1007/s10579-012-9211-2) as Long
Range Arena pairs and reads them (Tay et al. 2020, https://arxiv.org/abs/2011.04006, section 2.2.3): the id of
a byte is its value plus one, and of a long paper the head is kept. The files are read as they stand: no
quotes are taken off and no escapes undone, as in the published code, so a text that was written as the
literal of a Python byte string begins with b and a quote here too. Deviations: the last examples of a split
count too, where the published code drops what does not fill a batch. Its results on this task cannot be
compared with those of any other code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.holdout import enough, shuffled
from lra_tasks.interface import PAD, SPLITS, Card, Examples, Split, Task
from lra_tasks.sources import Published
from lra_tasks.text import decode, encode

PAPERS = Published(
    "OpenNLPLab/lra",
    tuple(f"data/aan/new_aan_pairs.{part}.tsv" for part in ("train", "eval", "test")),
    bytes=10_620_000_000,
    release="tsv_data",
)
COLUMNS = ("label", "id1", "id2", "text1", "text2")
NOTHING = b" "  # stands for a text without a byte, as a sequence must have a token
_STRANGE = b"\xff"  # the one byte whose id would be PAD; UTF-8 has none


@dataclass(frozen=True, kw_only=True)
class Retrieval(Task):
    """Pairs of papers, in the splits in which they were published.

    A split of the published size comes in the order of its file. A smaller one is a part drawn by the seed,
    with the classes as balanced as in the whole. A text without a byte counts as one space. The pairs of
    different splits are different, but papers may recur: `attnbench show retrieval` counts them.

    Attributes:
        length: bytes kept of each paper, from its head.
        seed: of which pairs are left out where a size is smaller than its whole.
    """

    card: ClassVar[Card] = Card(
        title="Retrieval",
        paper="https://arxiv.org/abs/2011.04006",
        description="Whether one of two papers cites the other (1) or not (0), from the bytes of both.",
        output="pair",
        classes=2,
        vocabulary=257,
        length=4000,
        sizes={"train": 147_086, "validation": 18_090, "test": 17_437},
        floors={"majority": 0.5},
        source=PAPERS.repository,
        names=("not cited", "cited"),
    )

    length: int = 4000
    train: int = 147_086
    validation: int = 18_090
    test: int = 17_437

    def published(self) -> Published:
        """The pairs on the public hub; the Long Range Arena release has the same files."""
        return PAPERS

    def examples(self, split: Split) -> Examples:
        """The pairs of one split.

        Raises:
            FileNotFoundError: the papers are not there; the message says how to get them.
            ValueError: more of them are asked for than there are, or a line of a file is not a pair.
        """
        path, wanted = self.files()[SPLITS.index(split)], getattr(self, split)
        whole = read(path, self.length)
        enough("Retrieval", split, wanted, len(whole), "pairs")
        if wanted == len(whole):
            return whole
        order = shuffled(whole.labels, np.random.default_rng([self.seed, SPLITS.index(split)]))
        return whole.take(order[:wanted])

    def spell(self, tokens: NDArray[np.integer]) -> str:
        """The text of a paper."""
        return decode(tokens)


def read(path: Path, length: int) -> Examples:
    """All pairs of one file: a label, two names and two texts a line, with tabs between them.

    Raises:
        ValueError: a line is no such thing; the message names the file, the line and what stands there.
    """
    # Bytes end to end: as objects of their own, the texts of the training file would take memory twice.
    stored, lengths, labels = bytearray(), list[int](), list[int]()
    for label, first, second in _lines(path):
        start = len(stored)
        stored += encode(first[:length] or NOTHING).tobytes()
        stored.append(PAD)
        stored += encode(second[:length] or NOTHING).tobytes()
        lengths.append(len(stored) - start)
        labels.append(label)
    tokens = np.frombuffer(stored, dtype=np.uint8)
    return Examples(tokens, lengths, np.array(labels, dtype=np.int64), output="pair")


def _lines(path: Path) -> Iterator[tuple[int, bytes, bytes]]:
    """The label and the two texts of each line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"line {number} of {path}"
            cells = line.rstrip(b"\r\n").split(b"\t")
            if len(cells) != len(COLUMNS):
                raise ValueError(
                    f"{where} has {len(cells)} columns, not the {len(COLUMNS)} of "
                    f"{', '.join(COLUMNS)} with tabs between them: {_head(line)}"
                )
            if _STRANGE in line:
                raise ValueError(f"{where} is not UTF-8: byte {line.index(_STRANGE)} of it is 0xff")
            yield _label(cells[0], where), cells[3], cells[4]


def _label(cell: bytes, where: str) -> int:
    """A label, which is written as a number with a point."""
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{where} has the label {_head(cell)}, which is not a number") from None
    if value not in (0, 1):
        raise ValueError(f"{where} has the label {_head(cell)}; labels are 0 and 1")
    return int(value)


def _head(cell: bytes) -> str:
    """The beginning of what stands in a file, as it may stand in a message."""
    return repr(cell[:40].decode(errors="replace"))
