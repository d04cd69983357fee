"""What Pathfinder and Path-X have in common: all but their sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lra_tasks.bag import bag_guess
from lra_tasks.contours.drawing import mixed
from lra_tasks.contours.following import joined, middles
from lra_tasks.contours.places import places_guess
from lra_tasks.contours.released import home, lists, pixels, read
from lra_tasks.contours.scene import Contour, scene
from lra_tasks.generation import distinct
from lra_tasks.holdout import enough, shuffled
from lra_tasks.interface import Examples, Split, Task

LEVELS = 256

# Pictures of each margin in a round: as few as still are worth one.
ROUND = {32: 256, 64: 64, 128: 16, 256: 32}


@dataclass(frozen=True, kw_only=True)
class Contours(Task):
    """Whether two discs are joined by a contour, at one of several sizes.

    Attributes:
        length: pixels of a picture; it follows from the size.
        size: pixels of a side.
        contour: how long the contours are: 6, 9 or 14 dashes, which Long Range Arena calls easy, intermediate
            and hard; what is published is hard.
        black: what a black pixel is. "padding" is what the published code makes of it, which masks black
            pixels out of attention; it is here for comparison with published numbers.
        source: "generated", or "release": the pictures of the Long Range Arena release, all three splits
            drawn by the seed from one folder. Its lists are hashed, the pictures themselves are not.
    """

    size: int
    contour: Contour = "hard"
    black: Literal["token", "padding"] = "token"
    source: Literal["generated", "release"] = "generated"
    train: int = 160_000
    validation: int = 20_000
    test: int = 20_000

    def __post_init__(self) -> None:
        """Fit the length and the card to the size.

        Raises:
            ValueError: a length that the size does not have.
        """
        if self.length not in (self.size**2, type(self).card.length):
            raise ValueError(
                f"{type(self).__name__}: length is {self.size**2} at size={self.size}, not {self.length}"
            )
        object.__setattr__(self, "length", self.size**2)
        super().__post_init__()
        card = replace(type(self).card, length=self.length)
        if self.black == "padding":
            card = replace(card, vocabulary=LEVELS)
        if self.source == "release":
            card = replace(card, source=f"lra_release/{home(self.size, self.contour)}")
        if card != type(self).card:
            object.__setattr__(self, "card", card)

    def files(self) -> list[Path]:
        """The lists of the release; none where pictures are generated.

        Raises:
            FileNotFoundError: they are not here; the message shows the tree that is looked for.
            ValueError: they are here twice.
        """
        return lists(self.size, self.contour) if self.source == "release" else []

    def examples(self, split: Split) -> Examples:
        """The pictures of one split; if generated, distinct within it and across splits.

        Raises:
            FileNotFoundError: the release is asked for and not here.
            ValueError: there are fewer than asked for, or a file is not what the release has.
        """
        if self.source == "generated":
            return distinct(self, split, self._draw)
        listed = read(self.files())
        sizes = self.train + self.validation + self.test
        enough(type(self).__name__, "train + validation + test", sizes, len(listed.paths), "pictures")
        order = shuffled(listed.labels, np.random.default_rng(self.seed))
        places = {
            "test": order[: self.test],
            "validation": order[self.test : self.test + self.validation],
            "train": order[-self.train :],
        }
        chosen = places[split]
        images = np.empty((len(chosen), self.size, self.size), dtype=np.uint8)
        for image, row in zip(images, chosen, strict=True):
            image[:] = pixels(listed.paths[row], self.size)
        return self._told(images, listed.labels[chosen])

    def _draw(self, rng: np.random.Generator) -> Examples:
        return self._told(*mixed(rng, scene(self.size, self.contour), ROUND[self.size]))

    def _told(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Examples:
        """Pictures and their labels as examples."""
        lengths = [self.length] * len(images)
        shift = 1 if self.black == "token" else 0
        return Examples(images.ravel(), lengths, labels, output="sequence", shift=shift)

    def solve(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        """The label of one picture, by following every chain of dashes that may be seen in it."""
        image = self.pixels(tokens).astype(np.int64)
        return np.array([int(joined(image, scene(self.size, self.contour)))])

    def guesses(self, examples: Examples) -> Mapping[str, NDArray[np.integer]]:
        """The floors: the commonest label, the levels without their places, and the places of the discs."""
        return {
            **super().guesses(examples),
            "bag of levels": bag_guess(examples, LEVELS + 1),
            "places of the discs": places_guess(self._places(examples), examples.labels),
        }

    def _places(self, examples: Examples) -> NDArray[np.float64]:
        """Rows and columns of the discs in shares of a side, (pictures, 2, 2).

        Where not two are found, as may be in pictures that others drew, both stand in the middle.
        """
        places = np.full((len(examples), 2, 2), 0.5)
        for row in range(len(examples)):
            image = self.pixels(examples.sequence(row)).astype(np.int64)
            found = middles(image, scene(self.size, self.contour))
            if len(found) == 2:
                places[row] = np.array(found) / self.size
        return places

    def pixels(self, tokens: NDArray[np.integer]) -> NDArray[np.uint8]:
        """The picture, (size, size)."""
        return (tokens - (self.black == "token")).reshape(self.size, self.size).astype(np.uint8)

    def picture(self, tokens: NDArray[np.integer], labels: NDArray[np.integer]) -> str:
        """A picture as 32 lines of marks, the heavier the brighter the brightest of the pixels there."""
        block = self.size // 32
        coarse = self.pixels(tokens).astype(np.int64).reshape(32, block, 32, block).max(axis=(1, 3))
        marks = ".:+#@"
        lines = ["".join(marks[n * len(marks) // LEVELS] for n in line) for line in coarse.tolist()]
        return "\n".join((*lines, f"label  {labels[0]}"))
