import doctest
import importlib.util

import numpy as np
import pytest

from lra_tasks import digits
from lra_tasks.digits import Digits
from lra_tasks.interface import SPLITS, Examples

needs_digits = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")


@needs_digits
def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    published = load_digits()
    task = Digits()
    whole = Examples.join([task.examples(split) for split in SPLITS])
    images = (published.images.reshape(-1, 64) + 1).astype(np.uint8)
    ours = {(whole.sequence(row).tobytes(), int(whole.labels[row])) for row in range(len(whole))}
    assert len(whole) == len(images) == 1_797
    assert ours == {
        (image.tobytes(), int(label)) for image, label in zip(images, published.target, strict=True)
    }


@needs_digits
def test_floors_of_all_digits_are_those_of_the_card() -> None:
    whole = Examples.join([Digits().examples(split) for split in SPLITS])
    assert Digits().floors(whole) == pytest.approx(dict(Digits.card.floors), abs=0.001)


@needs_digits
def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="is 1798, but there are only 1797 digits"):
        Digits(test=401).examples("train")


def test_it_is_not_called_long_range_arena() -> None:
    assert "not Long Range Arena" in Digits.card.description


def test_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length is 64"):
        Digits(length=63)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'attnbench\[digits\]'"):
        Digits().examples("test")


@needs_digits
def test_picture() -> None:
    assert doctest.testmod(digits).failed == 0
    assert doctest.testmod(digits).attempted > 0
