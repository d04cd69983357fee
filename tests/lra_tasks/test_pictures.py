"""Examples as people read them."""

import numpy as np
import pytest

from lra_tasks import TASKS
from lra_tasks.digits import Digits
from lra_tasks.image import Image
from lra_tasks.imdb_halves import ImdbHalves
from lra_tasks.interface import IGNORE, PAD
from lra_tasks.listops import ListOps
from lra_tasks.listops import encode as tree
from lra_tasks.pixels import drawn
from lra_tasks.probes.needle import Needle
from lra_tasks.text import Text, encode
from tests.lra_tasks.specimens import Honest


def test_what_spells_nothing_shows_its_ids() -> None:
    assert Honest().picture(np.array([1, 2, 2]), np.array([0])) == "input  1 2 2\nlabel  0"


def test_label_is_told_with_its_meaning() -> None:
    assert Text().picture(encode("A gem."), np.array([1])) == "input  A gem.\nlabel  1 (positive)"
    assert ListOps().picture(tree("[MAX 4 2 ]"), np.array([4])) == "input  [MAX 4 2 ]\nlabel  4"
    assert Text.card.called(IGNORE) == "-"


def test_two_of_a_pair_stand_in_two_lines() -> None:
    tokens = np.concatenate((encode("I said."), [PAD], encode("He too.")))
    picture = ImdbHalves().picture(tokens, np.array([0]))
    assert picture == "first  I said.\nsecond He too.\nlabel  0 (two reviews)"


def test_labels_of_a_probe_stand_below_their_tokens() -> None:
    task = Needle(length=4, distance=2)
    tokens, labels = task.draw(np.random.default_rng(0), 1)
    first, second = task.picture(tokens[0], labels[0]).splitlines()
    assert first.index("?") == second.index(str(labels[0].max()))
    assert task.spell(tokens[0]).split() == first.split()[1:]


@pytest.mark.parametrize("black", ["token", "padding"])
def test_pixels_are_the_levels_whatever_black_is(black: str) -> None:
    levels = np.random.default_rng(0).integers(256, size=1024)
    task = Image(black=black)  # type: ignore[arg-type]
    assert np.array_equal(task.pixels(levels + (black == "token")).ravel(), levels)
    picture = task.picture(levels + (black == "token"), np.array([3])).splitlines()
    assert [len(line) for line in picture[:-1]] == [32] * 16
    assert picture[-1] == "label  3 (cat)"


def test_digits_are_dark_ink_on_white_paper() -> None:
    tokens = np.arange(64) % 17 + 1
    assert Digits().pixels(tokens).ravel()[[0, 16]].tolist() == [255, 0]
    assert Digits().picture(tokens, np.array([7])).splitlines()[-1] == "label  7"


def test_sequences_that_are_no_image_have_no_pixels() -> None:
    named = {
        name for name, task in TASKS.items() if task().pixels(np.ones(task.card.length, int)) is not None
    }
    assert named == {"image", "digits", "pathfinder", "path_x"}


@pytest.mark.parametrize("name", TASKS)
def test_every_class_has_a_name_or_none_has(name: str) -> None:
    assert len(TASKS[name].card.names) in (0, TASKS[name].card.classes)


def test_marks_follow_the_levels() -> None:
    assert drawn(np.array([[0, 255], [128, 128]], dtype=np.uint8)) == "  @@\n++++"
    wide = np.zeros((3, 20), dtype=np.uint8)
    wide[2] = 255
    assert drawn(wide).splitlines() == [" " * 20, "@" * 20]
