"""The page of samples."""

from pathlib import Path

import pytest

from reports.samples import Count, Sample, Samples, write_samples
from tests.reports.test_browser import CHROMIUM, browse

# One black pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def samples(kind: str) -> Samples:
    sample = Sample(
        label=None if kind == "aligned" else "1 (<good> & kind)",
        tokens=1_300,
        left_out=700,
        lines=["input  <b>bold</b> &amp; " + "word " * 100, "label  - - - 3"],
        png=PNG if kind == "image" else None,
    )
    return Samples(
        task="text(length=2000)",
        title="Text",
        description="Whether a review is kind.",
        paper="https://example.org/paper",
        source="owner/name",
        split="train",
        examples=22_500,
        kind=kind,  # type: ignore[arg-type]
        samples=[sample] * 6,
        labels=[Count(label="0", count=7_500, share=1 / 3), Count(label="1", count=15_000, share=2 / 3)],
        lengths={"shortest": 52, "longest": 4_096},
        floors={"majority": 2 / 3, "bag of bytes": 0.7},
        recurring={"test": 100},
    )


def test_page_says_what_it_was_told_and_escapes_it(tmp_path: Path) -> None:
    page = write_samples(samples("text"), tmp_path / "page.html").read_text()
    for words in (
        "22,500",
        "1,300 tokens",
        "700 are left out",
        "66.7%",
        "4,096",
        "in test too",
        "owner/name",
    ):
        assert words in page
    assert "&lt;b&gt;bold&lt;/b&gt; &amp;amp;" in page
    assert "<b>" not in page


def test_image_stands_in_the_page(tmp_path: Path) -> None:
    page = write_samples(samples("image"), tmp_path / "page.html").read_text()
    assert page.count(f"data:image/png;base64,{PNG}") == 6
    assert "<pre" not in page


@pytest.mark.parametrize("name", ["page.txt", "folder"])
def test_what_is_no_page_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=rf"{name} is not the name of a page; call it, say, .*\.html"):
        write_samples(samples("text"), tmp_path / name)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("kind", ["image", "aligned", "text"])
def test_page_opens_offline_and_is_quiet(tmp_path: Path, kind: str) -> None:
    page = write_samples(samples(kind), tmp_path / "page.html")
    console, asked, shot = browse(page, tmp_path, 400)
    assert console == ""
    assert [url for url in asked if not url.startswith("data:")] == []
    assert shot.stat().st_size > 10_000
