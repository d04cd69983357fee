"""The pictures of the Long Range Arena release: where they lie, and how its lists tell their labels.

    pathfinder32/curv_contour_length_14/metadata/0.npy       one row a picture, text in spite of its name
    pathfinder32/curv_contour_length_14/imgs/0/sample_0.png

A row has a folder, a file, a number, the label, and how the picture was drawn; the generator itself writes
the same rows as arrays of NumPy, which are read as well.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from lra_tasks.contours.scene import Contour
from lra_tasks.sources import RELEASE, VARIABLE

FOLDERS: dict[Contour, str] = {
    "easy": "curv_baseline",
    "intermediate": "curv_contour_length_9",
    "hard": "curv_contour_length_14",
}


@dataclass(frozen=True)
class Listed:
    """Pictures that lists name.

    Attributes:
        paths: of the files.
        labels: (pictures,).
    """

    paths: list[Path]
    labels: NDArray[np.int64]


def home(size: int, contour: Contour) -> str:
    """The folder of these pictures in the release."""
    return f"pathfinder{size}/{FOLDERS[contour]}"


def lists(size: int, contour: Contour) -> list[Path]:
    """The lists of these pictures, unpacked below `ATTNBENCH_DATA`, in the order of their numbers.

    Raises:
        FileNotFoundError: they are not there; the message shows the tree that is looked for.
        ValueError: they are there twice.
    """
    folder = os.environ.get(VARIABLE)
    name = home(size, contour)
    places = [Path(folder, above, name) for above in RELEASE] if folder else []
    found = [place for place in places if any((place / "metadata").glob("*.npy"))]
    if len(found) > 1:
        raise ValueError(
            f"the release has two folders {name}: {found[0]} and {found[1]}. They are not the same in every "
            "copy of it, so take away the one that is not meant"
        )
    if not found:
        where = f"{VARIABLE} is {folder}" if folder else f"{VARIABLE} names no folder"
        raise FileNotFoundError(
            f"{where}; the Long Range Arena release is looked for there: {name}/metadata/*.npy and "
            f"{name}/imgs, as they are or below {' or '.join(filter(None, RELEASE))}. Unpack lra_release.gz "
            f"(a tar archive in spite of its name) and set {VARIABLE} to the folder above lra_release"
        )
    return sorted((found[0] / "metadata").glob("*.npy"), key=lambda path: (len(path.stem), path.stem))


def read(paths: Sequence[Path]) -> Listed:
    """What these lists name, without the empty files, of which the release has one.

    Raises:
        ValueError: a row is no such thing.
        FileNotFoundError: a file that a list names is not there.
    """
    files: list[Path] = []
    labels: list[int] = []
    for path in paths:
        for number, row in enumerate(_rows(path), start=1):
            if len(row) < 4 or row[3] not in ("0", "1"):
                raise ValueError(
                    f"row {number} of {path} is {' '.join(row)[:60]!r}; a row has a folder, a file, a number "
                    "and the label 0 or 1"
                )
            file = path.parent.parent / row[0] / row[1]
            if not file.is_file():
                raise FileNotFoundError(f"row {number} of {path} names {file}, which does not exist")
            if file.stat().st_size:
                files.append(file)
                labels.append(int(row[3]))
    return Listed(files, np.array(labels, dtype=np.int64))


def _rows(path: Path) -> list[list[str]]:
    try:
        return _listed(path.read_bytes())
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no list of pictures: {error}") from error


def _listed(content: bytes) -> list[list[str]]:
    if not content.startswith(b"\x93NUMPY"):
        return [line.split() for line in content.decode("ascii").splitlines() if line.strip()]
    rows = np.load(BytesIO(content), allow_pickle=False)
    if rows.ndim != 2:
        raise ValueError(f"its shape is {rows.shape}, and not one row a picture")
    # Bytes where Python 2 saved it.
    return rows.astype(str).tolist()


def pixels(path: Path, size: int) -> NDArray[np.uint8]:
    """The levels of gray of a picture, (size, size).

    Raises:
        ValueError: it has another size, or cannot be read.
    """
    try:
        with Picture.open(path) as file:
            image = np.asarray(file.convert("L"))
    except OSError as error:
        raise ValueError(f"{path} is no whole picture: {error}") from error
    if image.shape != (size, size):
        raise ValueError(f"{path} has {image.shape[1]} x {image.shape[0]} pixels, not {size} x {size}")
    return image
