import os
from pathlib import Path

import pytest

from results.run import Plan, Run, runs
from results.store import Damaged, Store
from tests.results.build import record, speed_cell


def plan(*lengths: int) -> Plan:
    cells = tuple(speed_cell(length=length) for length in lengths)
    return Plan(name="p", description="", cells=cells, variants={}, tasks={})


def test_what_was_appended_is_read(tmp_path: Path):
    first, second = record(speed_cell(length=1)), record(speed_cell(length=2))
    with Store(tmp_path).writer() as one, Store(tmp_path).writer() as two:
        one.append(first)
        two.append(second)
        assert one.path != two.path
    assert {found.cell_id for found in Store(tmp_path).read()} == {first.cell_id, second.cell_id}


def test_a_writer_without_records_leaves_no_file(tmp_path: Path):
    with Store(tmp_path).writer():
        pass
    assert list(tmp_path.iterdir()) == []


def test_every_way_to_cut_the_last_line_drops_only_it(tmp_path: Path):
    with Store(tmp_path).writer() as writer:
        writer.append(record(speed_cell(length=1)))
        whole = writer.path.stat().st_size
        writer.append(record(speed_cell(length=2)))
    content = writer.path.read_bytes()
    for cut in range(whole, len(content)):
        writer.path.write_bytes(content[:cut])
        assert [found.cell.length for found in Store(tmp_path).read()] == [1]
    writer.path.write_bytes(content)
    assert [found.cell.length for found in Store(tmp_path).read()] == [1, 2]


def test_a_damaged_line_is_named_and_costs_no_other(tmp_path: Path):
    with Store(tmp_path).writer() as writer:
        for length in (1, 2, 3):
            writer.append(record(speed_cell(length=length)))
    lines = writer.path.read_bytes().split(b"\n")
    lines[1] = lines[1][:40]
    writer.path.write_bytes(b"\n".join(lines))
    with pytest.warns(Damaged, match=r"\.jsonl:2 cannot be read"):
        assert [found.cell.length for found in Store(tmp_path).read()] == [1, 3]


def test_a_record_is_on_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Store(tmp_path).writer() as writer:
        writer.append(record())
    assert len(synced) == 1


def test_the_first_measurement_counts_and_a_failure_gives_way_to_it(tmp_path: Path):
    run = Run(tmp_path)
    with run.store.writer() as writer:
        writer.append(record(status="timeout", after_s=0))
        writer.append(record(after_s=10))
        writer.append(record(status="error", after_s=20))
    assert [(found.status, found.started_at.second) for found in run.latest().values()] == [("ok", 10)]


def test_of_failures_the_last_counts(tmp_path: Path):
    run = Run(tmp_path)
    with run.store.writer() as writer:
        writer.append(record(status="error", after_s=20))
        writer.append(record(status="timeout", after_s=0))
    assert [found.status for found in run.latest().values()] == ["error"]


def test_only_cells_of_the_newest_plan_count(tmp_path: Path):
    run = Run(tmp_path)
    with run.store.writer() as writer:
        writer.append(record(speed_cell(length=1)))
        writer.append(record(speed_cell(length=2)))
    run.keep(plan(1, 2))
    assert run.counts() == {"ok": 2, "left": 0}
    run.keep(plan(2, 3))
    assert run.counts() == {"ok": 1, "left": 1}
    run.keep(plan(1, 2))
    assert run.counts() == {"ok": 2, "left": 0}


def test_the_plan_that_was_kept_last_is_in_force_whatever_the_clock_says(tmp_path: Path):
    run = Run(tmp_path)
    run.keep(plan(1))
    (ahead,) = tmp_path.glob("plan-*.json")
    os.utime(ahead, (4e9, 4e9))
    for lengths in ((2, 3), (1,), (2, 3)):
        run.keep(plan(*lengths))
        assert run.plan() == plan(*lengths)


def test_merging_is_copying(tmp_path: Path):
    for name, length in (("a", 1), ("b", 2)):
        with Run(tmp_path / name).store.writer() as writer:
            writer.append(record(speed_cell(length=length)))
    merged = tmp_path / "merged"
    merged.mkdir()
    for path in tmp_path.glob("*/*.jsonl"):
        path.rename(merged / path.name)
    assert Run(merged).counts() == {"ok": 2}
    assert [run.name for run in runs(tmp_path)] == ["merged"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "reference", "a" * 201])
def test_names_that_are_no_folder_are_refused(name: str, tmp_path: Path):
    with pytest.raises(ValueError, match="name"):
        Run.named(name, tmp_path)


def test_a_full_disk_is_named_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int, line: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with Store(tmp_path).writer() as writer, pytest.raises(OSError, match=r"No space left .*\.jsonl"):
        writer.append(record())


def test_a_plan_that_is_no_text_is_named(tmp_path: Path):
    (tmp_path / "plan-0.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"plan-0\.json cannot be read as a plan; delete it"):
        Run(tmp_path).plan()


def test_a_file_is_no_folder_of_runs(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is not a folder"):
        runs(tmp_path / "file")


@pytest.mark.parametrize("doubted_first", [True, False])
def test_an_attempt_that_was_doubted_stays_so_whichever_file_is_read_last(
    tmp_path: Path, *, doubted_first: bool
):
    kept, run = record(), Run(tmp_path / "run")
    lines = (
        [kept.doubted("a slow product"), kept] if doubted_first else [kept, kept.doubted("a slow product")]
    )
    for name, line in zip("ab", lines, strict=True):
        run.path.mkdir(exist_ok=True)
        (run.path / f"{name}.jsonl").write_text(line.model_dump_json() + "\n")
    assert run.latest()[kept.cell_id].status == "contaminated"
