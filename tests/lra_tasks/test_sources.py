import hashlib
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.hf_api import RepoFile

from lra_tasks import sources
from lra_tasks.sources import Published, released, size

IMDB = Published("stanfordnlp/imdb", ("plain_text/train.parquet", "plain_text/test.parquet"))


def lay(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


@pytest.mark.parametrize("home", ["imdb", "stanfordnlp/imdb"])
def test_named_folder_is_searched_with_and_without_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    lay(tmp_path / home, *IMDB.files)
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    assert IMDB.locate() == [tmp_path / home / file for file in IMDB.files]


def complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        IMDB.locate()
    return str(caught.value)


def test_missing_file_is_named_with_what_is_near_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "imdb/plain_text/train.parquet")
    said = complaint(tmp_path, monkeypatch)
    assert f"{tmp_path / 'imdb/plain_text/test.parquet'} does not exist" in said
    assert f"nearest is {tmp_path / 'imdb/plain_text/train.parquet'}" in said
    assert "hf download stanfordnlp/imdb plain_text/train.parquet plain_text/test.parquet" in said
    assert f"--local-dir {tmp_path / 'imdb'}" in said
    assert "ATTNBENCH_DATA" in said


def test_other_folders_beside_it_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path, "cifar/a.parquet")
    assert f"({tmp_path} holds cifar)" in complaint(tmp_path, monkeypatch)


def test_empty_and_missing_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"({tmp_path} holds nothing)" in complaint(tmp_path, monkeypatch)
    assert f"({tmp_path} holds nothing)" in complaint(tmp_path / "gone", monkeypatch)


def test_named_folder_without_the_files_is_never_a_reason_to_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(sources, "hf_hub_download", download)
    assert "does not exist" in complaint(tmp_path, monkeypatch)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        IMDB.fetch(print)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Hub":
    monkeypatch.delenv("ATTNBENCH_DATA", raising=False)
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(sources, "hf_hub_download", hub.download)
    monkeypatch.setattr(sources, "HfApi", lambda: hub)
    return hub


class Hub:
    """Stands for the hub's client: what it serves, and what of it was asked for."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.served = dict.fromkeys(IMDB.files, b"reviews")
        self.downloaded: list[str] = []
        self.failure: Exception | None = None

    def get_paths_info(self, repository: str, files: list[str], *, repo_type: str) -> list[RepoFile]:
        assert (repository, repo_type) == (IMDB.repository, "dataset")
        told = [(file, hashlib.sha256(self.served[file]).hexdigest()) for file in files]
        return [
            RepoFile(path=f, size=1_500_000, oid="0", lfs={"oid": d, "size": 7, "pointerSize": 1})
            for f, d in told
        ]

    def download(self, repository: str, file: str, *, repo_type: str, local_files_only: bool = False) -> str:
        assert (repository, repo_type) == (IMDB.repository, "dataset")
        path = self.cache / file
        if not path.exists():
            if local_files_only:
                raise LocalEntryNotFoundError("not cached")
            if self.failure is not None:
                raise self.failure
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"reviews")
            self.downloaded.append(file)
        return str(path)


def test_nothing_is_downloaded_before_it_is_asked_for(hub: Hub) -> None:
    with pytest.raises(FileNotFoundError, match="not in the hub's cache; `attnbench prepare` downloads it"):
        IMDB.locate()
    assert hub.downloaded == []


def test_sizes_are_said_before_a_download_and_not_after_it(hub: Hub) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        assert hub.downloaded == []
        said.append(line)

    paths = [hub.cache / file for file in IMDB.files]
    assert IMDB.fetch(say) == paths
    assert said == [
        "downloading stanfordnlp/imdb: plain_text/train.parquet 1.5 MB, plain_text/test.parquet 1.5 MB"
    ]
    assert IMDB.fetch(say) == paths
    assert IMDB.locate() == paths
    assert len(said) == 1
    assert hub.downloaded == list(IMDB.files)


def test_what_is_not_what_the_hub_has_is_refused(hub: Hub) -> None:
    hub.served["plain_text/test.parquet"] = b"other reviews"
    with pytest.raises(OSError, match=r"test.parquet has the SHA-256 .* remove .* and download it again"):
        IMDB.fetch(print)


@pytest.mark.parametrize("failure", [ConnectionError("no route"), PermissionError("read only")])
def test_failed_download_says_what_to_do(hub: Hub, failure: Exception) -> None:
    hub.failure = failure
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(.*hf download") as caught:
        IMDB.fetch(lambda line: None)
    assert str(failure) in str(caught.value)
    assert "$ATTNBENCH_DATA/imdb" in str(caught.value)
    assert caught.value.__cause__ is failure


def test_size_is_said_where_the_hub_cannot_be_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> list[RepoFile]:
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "get_paths_info", unreachable)
    large = Published(IMDB.repository, IMDB.files, bytes=10_620_000_000)
    with pytest.raises(FileNotFoundError, match=r"\(10.6 GB\) is not in .*`attnbench prepare`"):
        large.locate()
    with pytest.raises(FileNotFoundError, match=r"imdb \(10.6 GB\) is not in .*downloaded \(no route\)"):
        large.fetch(print)


def test_release_is_no_place_for_what_it_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "tsv_data/train.parquet", "tsv_data/test.parquet")
    assert "lra_release" not in complaint(tmp_path, monkeypatch)
    with_release = Published(IMDB.repository, IMDB.files, release="tsv_data")
    assert with_release.locate() == [tmp_path / "tsv_data" / Path(file).name for file in IMDB.files]


def test_file_that_the_hub_does_not_know_is_no_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "get_paths_info", lambda *_, **__: [])
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(the hub has no plain_text/train"):
        IMDB.fetch(print)


@pytest.mark.parametrize("ask", [Published.locate, lambda imdb: imdb.fetch(print)])
def test_real_hub_client_offline_ends_in_the_same_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Published], object]
) -> None:
    monkeypatch.delenv("ATTNBENCH_DATA", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="hf download"):
        ask(IMDB)


@pytest.mark.parametrize("above", ["", "lra_release", "lra_release/lra_release"])
def test_release_is_found_wherever_people_unpack_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str
) -> None:
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    home = Path(above, "listops-1000")
    lay(tmp_path, str(home / "a.tsv"), str(home / "b.tsv"))
    assert released("listops-1000", ["a.tsv", "b.tsv"]) == [tmp_path / home / f for f in ("a.tsv", "b.tsv")]


def test_missing_release_shows_the_tree_that_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "listops-1000/a.tsv")
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"listops-1000/a\.tsv and listops-1000/b\.tsv") as caught:
        released("listops-1000", ["a.tsv", "b.tsv"])
    assert f"ATTNBENCH_DATA is {tmp_path}" in str(caught.value)
    monkeypatch.delenv("ATTNBENCH_DATA")
    with pytest.raises(FileNotFoundError, match="ATTNBENCH_DATA names no folder"):
        released("listops-1000", ["a.tsv"])


@pytest.mark.parametrize(
    ("count", "said"),
    [(12, "12 bytes"), (1_000, "1 kB"), (20_979_968, "21 MB"), (8_530_000_000, "8.53 GB")],
)
def test_sizes_are_said_as_people_do(count: int, said: str) -> None:
    assert size(count) == said
