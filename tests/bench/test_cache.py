import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bench import cache
from bench.cache import Entry, file_digest
from lra_tasks import catalogue
from lra_tasks.image import Image
from lra_tasks.interface import IGNORE, SPLITS, Examples, Split, Task
from lra_tasks.listops import ListOps
from tests.lra_tasks.specimens import Honest


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(one: Examples, other: Examples) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(parts(one), parts(other), strict=True)) and (
        (one.output, one.shift) == (other.output, other.shift)
    )


def parts(examples: Examples) -> list[np.ndarray]:
    return [examples.tokens, examples.starts, examples.labels, examples.label_starts]


@dataclass(frozen=True, kw_only=True)
class Counted(Honest):
    """Says when it is asked."""

    def examples(self, split: Split) -> Examples:
        asked.append(split)
        return super().examples(split)


@dataclass(frozen=True, kw_only=True)
class Translated(Honest):
    """Targets of their own length, and shifted tokens: all that an entry can hold."""

    def examples(self, split: Split) -> Examples:
        whole = super().examples(split)
        lengths = whole.lengths + 1
        labels = np.arange(lengths.sum()) % 3
        return Examples(
            whole.stored, whole.lengths, labels, output="seq2seq", target_lengths=lengths, shift=1
        )


asked: list[Split] = []


@pytest.mark.parametrize(
    "task",
    [
        ListOps(length=60, train=30, validation=10, test=10),
        catalogue.build("recall", {"train": 30, "validation": 10, "test": 10}),
        Translated(),
    ],
    ids=lambda task: type(task).__name__,
)
def test_what_comes_back_is_what_the_task_gives(task: Task) -> None:
    for split in SPLITS:
        assert same(cache.examples(task, split), task.examples(split))
        assert same(cache.examples(task, split), task.examples(split))


def test_second_time_nothing_is_made_and_the_file_is_mapped() -> None:
    asked.clear()
    first = cache.examples(Counted(), "test")
    second = cache.examples(Counted(), "test")
    assert asked == ["test"]
    for part in (first.stored, second.stored, second.labels):
        base = part
        while not isinstance(base, np.memmap) and base is not None:
            base = base.base
        assert isinstance(base, np.memmap)
        assert not part.flags.writeable
    assert second.batch([0, 1]).tokens.shape[0] == 2


@pytest.mark.parametrize(
    "other", [Counted(seed=1), Counted(length=23), Counted(train=299), Honest(), Translated()], ids=str
)
def test_other_options_and_other_tasks_have_entries_of_their_own(other: Task) -> None:
    assert Entry.of(Counted()).path != Entry.of(other).path
    assert Entry.of(Counted()).path == Entry.of(Counted()).path


def test_changed_code_has_an_entry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Entry.of(Counted()).path
    monkeypatch.setattr(cache, "digest", lambda files: "other code")
    assert Entry.of(Counted()).path != before


def test_changed_source_file_has_an_entry_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.bin"
    monkeypatch.setattr(Counted, "files", lambda self: [path], raising=False)
    path.write_bytes(b"one")
    before = Entry.of(Counted()).path
    path.write_bytes(b"two!")
    assert Entry.of(Counted()).path != before


def test_file_is_hashed_once_for_each_of_its_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"one")
    first = file_digest(path)
    monkeypatch.setattr(cache, "sha256", lambda path: "hashed again")
    assert file_digest(path) == first == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    os.utime(path, ns=(0, 0))
    assert file_digest(path) == "hashed again"


def test_interrupted_making_leaves_no_entry(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_tell", torn)
        with pytest.raises(KeyboardInterrupt):
            cache.examples(Counted(), "test")
    assert list(Entry.of(Counted()).path.iterdir()) == []
    assert same(cache.examples(Counted(), "test"), Counted().examples("test"))


def test_two_who_make_the_same_at_once_both_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = cache._tell

    def slower(examples: Examples) -> cache.Told:
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_tell", tell)
            cache.examples(Counted(), "test")
        return tell(examples)

    monkeypatch.setattr(cache, "_tell", slower)
    assert same(cache.examples(Counted(), "test"), Counted().examples("test"))
    assert [path.name for path in Entry.of(Counted()).path.iterdir()] == ["test"]


def test_folder_that_cannot_be_written_is_named(empty: Path) -> None:
    empty.write_text("a file where the cache should be")
    with pytest.raises(OSError, match="cache"):
        cache.examples(Counted(), "test")


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNBENCH_CACHE", "here")
    assert cache.folder() == Path.cwd() / "here"
    monkeypatch.delenv("ATTNBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.folder() == Path("/x/attnbench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "attnbench"


def test_prepare_tells_of_every_split_and_draws_none_twice() -> None:
    asked.clear()
    steps: list[tuple[Split, int, int]] = []
    entry, told = cache.prepare(Counted(), workers=1, report=lambda *step: steps.append(step))
    assert sorted(asked) == sorted(SPLITS)
    assert {split for split, _, _ in steps} == set(SPLITS)
    # Each split is drawn once: how much there is never falls back.
    assert [step[1] for step in steps if step[0] == "test"] == [64, 100]
    for split in SPLITS:
        examples = Counted().examples(split)
        assert same(cache.examples(Counted(), split), examples)
        assert told[split].examples == len(examples)
        assert told[split].label_counts == dict(enumerate(np.bincount(examples.labels).tolist()))
        assert told[split] == entry.told(split)
    assert len({t.tokens_sha256 for t in told.values()} | {t.labels_sha256 for t in told.values()}) == 6


def test_hashes_are_of_the_bytes() -> None:
    labels = np.array([1, IGNORE, 0], dtype=np.int16)
    one = cache._tell(Examples(np.array([5, 6, 7], dtype=np.uint8), [2, 1], labels, output="token"))
    assert one.label_counts == {0: 1, 1: 1}
    assert json.loads(one.model_dump_json())["examples"] == 2
    other = cache._tell(Examples(np.array([5, 6, 7], dtype=np.uint8), [1, 2], labels, output="token"))
    assert one.tokens_sha256 != other.tokens_sha256
    assert one.labels_sha256 == other.labels_sha256


def test_black_of_images_is_an_option_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "files", lambda self: [])
    assert Entry.of(Image()).path != Entry.of(Image(black="padding")).path


def test_a_damaged_split_is_refused_by_name() -> None:
    entry = cache.Entry.of(Counted())
    told = cache.prepare(Counted(), workers=1, report=lambda *_: None)[1]
    labels = entry.path / "test" / "labels.npy"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{entry.path}/test is damaged; delete it"):
        cache.prepare(Counted(), workers=1, report=lambda *_: None)
    labels.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="test is damaged; delete it"):
        cache.examples(Counted(), "test")
    labels.write_bytes(whole)
    (entry.path / "test" / "told.json").write_text("")
    with pytest.raises(ValueError, match="test is damaged; delete it"):
        cache.examples(Counted(), "test")
    shutil.rmtree(entry.path / "test")
    assert cache.prepare(Counted(), workers=1, report=lambda *_: None)[1] == told


def test_a_worker_ends_with_whom_it_works_for(tmp_path: Path) -> None:
    script = tmp_path / "draws.py"
    script.write_text(
        "import os, signal, sys\n"
        "from lra_tasks.generation import means, _means\n"
        "if __name__ == '__main__':\n"
        "    with means(workers=2, made={}):\n"
        "        pids = {_means.get().pool.submit(os.getpid).result() for _ in range(8)}\n"
        "        print(*pids, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = [sys.executable, str(script)]
    told = subprocess.run(
        words, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(cache.__file__).parents[1])},
    ).stdout  # fmt: skip
    pids = [int(pid) for pid in told.split()]
    assert pids
    deadline = time.monotonic() + 20.0
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived the process that it worked for"
        time.sleep(0.1)
