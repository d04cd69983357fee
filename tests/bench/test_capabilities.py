"""The page of all variants."""

from pathlib import Path

import pytest

import variants
from bench.commands.arguments import page
from variants import VARIANTS


def test_the_page_is_that_of_today() -> None:
    written = Path(variants.__file__).with_name("README.md").read_text()
    assert written == page("variants"), "run: attnbench list variants --markdown > variants/README.md"


def test_every_variant_has_a_row() -> None:
    rows = [line for line in page("variants").splitlines() if line.startswith("| `")]
    assert len(rows) == len(VARIANTS)


def test_only_variants_have_a_page() -> None:
    with pytest.raises(ValueError, match="no page of tasks"):
        page("tasks")
