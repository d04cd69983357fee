r"""Digits: which digit was written, from 8 x 8 pixels read line by line.

    >>> page = np.array([[0, 5, 13, 9, 1, 0, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]])
    >>> print(picture(page + 1))
    .:#+....
    ..##+#:.

Long Range Arena has nothing of the kind: this stands in for its Image where CIFAR-10 cannot be had, comes
with scikit-learn, and is small enough for minutes on a laptop. 1,797 digits of 43 writers (Alpaydin and
Kaynak 1998, https://doi.org/10.24432/C50P49), 17 levels of gray; the id of a level is its value plus one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_tasks.bag import bag_guess
from lra_tasks.holdout import copies_last, enough, shuffled
from lra_tasks.interface import Card, Examples, Split, Task

SIDE = 8
LEVELS = 17


@dataclass(frozen=True, kw_only=True)
class Digits(Task):
    """Small gray digits, all three splits drawn by the seed from one set.

    Attributes:
        length: pixels of an image; there is one size.
    """

    card: ClassVar[Card] = Card(
        title="Digits",
        paper="https://doi.org/10.24432/C50P49",
        description="Which digit was written, from 8 x 8 gray pixels; a stand-in, not Long Range Arena.",
        output="sequence",
        classes=10,
        vocabulary=LEVELS + 1,
        length=SIDE * SIDE,
        sizes={"train": 1_197, "validation": 200, "test": 400},
        floors={"majority": 0.102, "bag of levels": 0.259},
        source="scikit-learn",
    )

    length: int = SIDE * SIDE
    train: int = 1_197
    validation: int = 200
    test: int = 400

    def __post_init__(self) -> None:
        """Check the length.

        Raises:
            ValueError: a length that images do not have.
        """
        super().__post_init__()
        if self.length != SIDE * SIDE:
            raise ValueError(f"Digits: length is {SIDE * SIDE}, for there is one size, not {self.length}")

    def files(self) -> list[Path]:
        """The file of scikit-learn that has them.

        Raises:
            FileNotFoundError: scikit-learn is not installed.
        """
        found = find_spec("sklearn")
        if found is None or found.origin is None:
            raise FileNotFoundError(
                "digits come with scikit-learn, which is not installed: pip install 'attnbench[digits]'"
            )
        return [Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"]

    def examples(self, split: Split) -> Examples:
        """The digits of one split.

        Raises:
            FileNotFoundError: scikit-learn is not installed.
            ValueError: more of them are asked for than there are.
        """
        (path,) = self.files()
        rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)
        levels, labels = rows[:, :-1], rows[:, -1].astype(np.int64)
        sizes = self.train + self.validation + self.test
        enough("Digits", "train + validation + test", sizes, len(rows), "digits")
        order = shuffled(labels, np.random.default_rng(self.seed))
        order = copies_last(order, [image.tobytes() for image in levels])
        places = {
            "test": order[: self.test],
            "validation": order[self.test : self.test + self.validation],
            "train": order[-self.train :],
        }
        chosen = places[split]
        tokens = levels[chosen].ravel() + np.uint8(1)
        return Examples(tokens, [self.length] * len(chosen), labels[chosen], output="sequence")

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest digit, and what the levels tell without their places."""
        return {**super().guesses(examples), "bag of levels": bag_guess(examples, self.card.vocabulary)}

    def pixels(self, tokens: NDArray[np.integer]) -> NDArray[np.uint8]:
        """The digit, (SIDE, SIDE), dark ink on white paper."""
        ink = (tokens.astype(np.int64) - 1) * 255 // (LEVELS - 1)
        return (255 - ink).reshape(SIDE, SIDE).astype(np.uint8)

    def picture(self, tokens: NDArray[np.integer], labels: NDArray[np.integer]) -> str:
        """The digit in marks, and which one it is."""
        return f"{picture(tokens)}\nlabel  {labels[0]}"


def picture(tokens: NDArray[np.integer]) -> str:
    """Lines of pixels as lines of marks, the darker the more ink."""
    shades = ".:+##"
    return "\n".join(
        "".join(shades[(token - 1) * len(shades) // LEVELS] for token in line)
        for line in tokens.reshape(-1, SIDE)
    )
