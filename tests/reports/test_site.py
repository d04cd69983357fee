import re
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest

from reports.cards import picture
from reports.site import MARK, publish, write_report
from results.cell import SpeedCell
from results.spec import Spec
from tests.reports.runs import comparison_records, record, speed, training_records


class Links(HTMLParser):
    """Every tag, and every address that a page names."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.found, self.alts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.append(tag)
        self.found += [(tag, named[key]) for key in ("src", "href") if key in named]
        if tag == "img":
            self.alts.append(named.get("alt"))


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def page(full_run, tmp_path_factory):
    return write_report(full_run, tmp_path_factory.mktemp("site") / "out")


def test_report_has_plots_tables_and_a_page(page):
    assert page.name == "index.html"
    names = files(page.parent)
    assert "plots/speed-core-fwd-noncausal-float32-cpu.svg" in names
    assert "plots/speed-core-fwd-noncausal-float32-cpu.png" in names
    assert "tables/status.md" in names
    assert "tables/comparison.csv" in names
    assert "records.csv" not in names


def test_every_address_is_relative_and_there_or_a_plain_link_to_a_paper(page):
    seen = Links(page.read_text())
    for tag, address in seen.found:
        if address.startswith("https://arxiv.org/"):
            assert tag == "a"
        elif address.startswith("#"):
            assert f'id="{address[1:]}"' in page.read_text()
        else:
            assert (page.parent / address).is_file(), address


def test_page_asks_nothing_of_the_network_and_runs_nothing(page):
    text = page.read_text()
    assert not {"script", "link", "iframe"} & set(Links(text).tags)
    assert "@import" not in text
    assert "url(" not in text


def test_text_from_records_is_escaped(page):
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "Made up for the tests &amp; nothing else." in text


def test_page_names_what_ran_what_failed_and_on_what(page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text()))
    for words in ("example", "4 timeout", "3 oom", "Example CPU 9000", "torch 2.11.0", "N (L + R + 1)"):
        assert words in text
    assert "chance 25.0 %, majority 24.0 %" in text


def test_page_says_how_often_nobody_knows_which_calls_were_quiet(written, tmp_path):
    cells = [SpeedCell(variant=Spec.parse("sdpa"), length=length) for length in (256, 512, 1024)]
    records = [record(cell, speed(cell)) for cell in cells]
    assert "all calls count" not in write_report(written(records), tmp_path / "before").read_text()
    for place, quiet in enumerate((None, None, 15 * [True])):
        found = speed(cells[place])
        beside = found.calibration.model_copy(update={"witness_s": 16 * [27e-6]})
        found = found.model_copy(update={"calibration": beside, "quiet": quiet})
        records[place] = record(cells[place], found)
    text = write_report(written(records), tmp_path / "out").read_text()
    said = re.sub(r"\s+", " ", text)
    assert "In 2 of 3 timed cells all calls count" in said
    assert "quiet machine. They are of sdpa." in said


def test_pictures_speak(page):
    alts = Links(page.read_text()).alts
    assert len(alts) == 7
    assert all(alt and len(alt) > 60 for alt in alts)
    assert "At N = 4k, in MiB: sdpa 4.8" in "".join(alts)
    assert 'aria-label="window(left=64, right=64) keeps 74 of 256' in page.read_text()


def test_same_run_same_bytes_and_an_old_report_is_replaced_completely(full_run, tmp_path):
    first = files(write_report(full_run, tmp_path / "out").parent)
    (tmp_path / "out" / "plots" / "stale.png").write_text("old")
    assert files(write_report(full_run, tmp_path / "out").parent) == first
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_is_no_report_is_left_alone(full_run, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="not a report"):
        write_report(full_run, mine)
    assert files(mine) == {"thesis.tex": b"years of work"}
    with pytest.raises(ValueError, match="not a folder"):
        write_report(full_run, mine / "thesis.tex")
    with pytest.raises(ValueError, match="not a report"):
        write_report(full_run, full_run.path)


def test_a_failure_leaves_the_old_report(full_run, tmp_path, monkeypatch):
    before = files(write_report(full_run, tmp_path / "out").parent)

    def broken(*_):
        raise RuntimeError("disk full")

    monkeypatch.setattr("reports.site.tables", broken)
    with pytest.raises(RuntimeError):
        write_report(full_run, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_an_empty_run_says_which_folder_and_what_to_do(written, tmp_path):
    with pytest.raises(ValueError, match=r"made holds no records.*run its matrix first"):
        write_report(written([]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_trainings_says_so(speed_run, tmp_path):
    text = write_report(speed_run, tmp_path / "out").read_text()
    assert "This run has no training cells" in text
    assert "This run has no comparison cells" in text
    assert "This folder has no plan" in text


@pytest.mark.parametrize("records", [comparison_records, training_records])
def test_a_run_of_one_protocol_is_enough(written, tmp_path, records):
    assert "no speed cells" in write_report(written(records()), tmp_path / "out").read_text()


def test_publish_adds_the_data(full_run, tmp_path):
    page = publish(full_run, tmp_path / "site")
    assert (page.parent / MARK).is_file()
    assert len(pd.read_csv(page.parent / "records.csv")) == len(full_run.latest()) + 1
    assert 'href="records.csv"' in page.read_text()


def test_a_picture_is_its_strokes():
    found = picture("##.#\n....\n####\n.#..", "x")
    assert [(s.x, s.y, s.width) for s in found.strokes] == [(0, 0, 2), (3, 0, 1), (0, 2, 4), (1, 3, 1)]
    assert found.alt == "x keeps 8 of 16 (query, key) pairs of 4 tokens"


def test_reports_need_no_torch():
    rooms = ("site", "plots", "tables", "frame", "cards")
    code = "import sys\n" + "\n".join(f"import reports.{room}" for room in rooms)
    code += "\nassert not {'torch', 'variants', 'bench', 'lra_tasks', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
