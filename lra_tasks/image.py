r"""Image: what a small photograph shows, from its levels of gray read line by line.

    >>> photograph = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]]], dtype=np.uint8)
    >>> levels = gray(photograph)
    >>> print(f"pixels  red green blue black\nlevels {levels.ravel()}\ninput  {levels.ravel() + 1}")
    pixels  red green blue black
    levels [ 76 149  29   0]
    input  [ 77 150  30   1]

CIFAR-10 (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf) as Long Range Arena
reads it (Tay et al. 2020, https://arxiv.org/abs/2011.04006, section 2.2.4): luma 0.2989 R + 0.587 G +
0.114 B in 8 bits, rounded as TensorFlow does, 1,024 pixels in raster order, no augmentation. Deviations: the
id of a level is its value plus one, where the published code has black pixels and padding share id 0 and
masks both; and validation is held out of the training images by the seed, not by their place in the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import ClassVar, Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image as Picture

from lra_tasks.bag import bag_guess
from lra_tasks.holdout import copies_last, enough, shuffled
from lra_tasks.interface import Card, Examples, Split, Task
from lra_tasks.sources import Published

SIDE = 32
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PHOTOGRAPHS = Published(
    "uoft-cs/cifar10",
    ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
)


@dataclass(frozen=True, kw_only=True)
class Image(Task):
    """Gray CIFAR-10: the published test set, and the published training set split in two by the seed.

    The sizes take a part of what there is, with the classes as balanced as in the whole.

    Attributes:
        length: pixels of an image; there is one size.
        black: what a black pixel is. "padding" is what the published code makes of it, which masks black
            pixels out of attention; it is here for comparison with published numbers.
    """

    card: ClassVar[Card] = Card(
        title="Image",
        paper="https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
        description="Which of ten things a 32 x 32 photograph shows, from its gray pixels in raster order.",
        output="sequence",
        classes=10,
        vocabulary=257,
        length=SIDE * SIDE,
        sizes={"train": 45_000, "validation": 5_000, "test": 10_000},
        floors={"majority": 0.1, "bag of levels": 0.178},
        source=PHOTOGRAPHS.repository,
        names=THINGS,
    )

    length: int = SIDE * SIDE
    train: int = 45_000
    validation: int = 5_000
    test: int = 10_000
    black: Literal["token", "padding"] = "token"

    def __post_init__(self) -> None:
        """Check the length, and fit the card to the meaning of black.

        Raises:
            ValueError: a length that images do not have.
        """
        super().__post_init__()
        if self.length != SIDE * SIDE:
            raise ValueError(f"Image: length is {SIDE * SIDE}, for there is one size, not {self.length}")
        if self.black == "padding":
            object.__setattr__(self, "card", replace(type(self).card, vocabulary=256))

    def published(self) -> Published:
        """CIFAR-10 on the public hub."""
        return PHOTOGRAPHS

    def examples(self, split: Split) -> Examples:
        """The images of one split.

        Raises:
            FileNotFoundError: the images are not there; the message says how to get them.
            ValueError: more of them are asked for than there are.
        """
        learning, testing = self.files()
        table = pq.read_table(testing if split == "test" else learning, columns=["img", "label"])
        labels = table["label"].to_numpy()
        stored: list[bytes] = table["img"].combine_chunks().field("bytes").to_pylist()
        order = shuffled(labels, np.random.default_rng([self.seed, split == "test"]))
        if split == "test":
            enough("Image", "test", self.test, len(order), "images")
            chosen = order[: self.test]
        else:
            enough("Image", "train + validation", self.train + self.validation, len(order), "images")
            order = copies_last(order, stored)
            chosen = order[: self.validation] if split == "validation" else order[-self.train :]
        levels = np.concatenate([gray(_decode(stored[row])).ravel() for row in chosen])
        lengths = [self.length] * len(chosen)
        shift = 1 if self.black == "token" else 0
        return Examples(levels, lengths, labels[chosen], output="sequence", shift=shift)

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest label, and what the levels tell without their places."""
        return {**super().guesses(examples), "bag of levels": bag_guess(examples, self.card.vocabulary)}

    def pixels(self, tokens: NDArray[np.integer]) -> NDArray[np.uint8]:
        """The photograph, (SIDE, SIDE)."""
        return (tokens - (self.black == "token")).reshape(SIDE, SIDE).astype(np.uint8)


def gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Levels of gray of pixels whose colours are the last axis.

    TensorFlow's rgb_to_grayscale: of the luma as a share of white, 255.5 times, cut to an integer; in exact
    arithmetic.
    """
    red, green, blue = np.moveaxis(rgb.astype(np.uint32), -1, 0)
    luma = 2989 * red + 5870 * green + 1140 * blue
    return (luma * 511 // (2 * 255 * 10_000)).astype(np.uint8)


def _decode(stored: bytes) -> NDArray[np.uint8]:
    """The pixels of an image file, (SIDE, SIDE, 3)."""
    return np.asarray(Picture.open(BytesIO(stored)).convert("RGB"))
