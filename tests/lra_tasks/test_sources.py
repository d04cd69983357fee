from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from lra_tasks import sources
from lra_tasks.sources import locate

FILES = ("plain_text/train.parquet", "plain_text/test.parquet")


def lay(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


@pytest.mark.parametrize("home", ["imdb", "stanfordnlp/imdb"])
def test_named_folder_is_searched_with_and_without_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    lay(tmp_path / home, *FILES)
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    assert locate("stanfordnlp/imdb", FILES) == [tmp_path / home / file for file in FILES]


def complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ATTNBENCH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        locate("stanfordnlp/imdb", FILES)
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


def test_without_the_variable_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, file: str, *, repo_type: str) -> str:
        return str(tmp_path / repo_type / repository / file)

    monkeypatch.delenv("ATTNBENCH_DATA", raising=False)
    monkeypatch.setattr(sources, "hf_hub_download", download)
    home = tmp_path / "dataset" / "stanfordnlp/imdb"
    assert locate("stanfordnlp/imdb", FILES) == [home / file for file in FILES]


@pytest.mark.parametrize(
    "failure",
    [LocalEntryNotFoundError("not cached"), ConnectionError("no route"), PermissionError("read only")],
)
def test_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def download(*_: object, **__: object) -> str:
        raise failure

    monkeypatch.delenv("ATTNBENCH_DATA", raising=False)
    monkeypatch.setattr(sources, "hf_hub_download", download)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(.*hf download") as caught:
        locate("stanfordnlp/imdb", FILES)
    assert str(failure) in str(caught.value)
    assert "$ATTNBENCH_DATA/imdb" in str(caught.value)
    assert caught.value.__cause__ is failure


def test_real_hub_client_offline_ends_in_the_same_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATTNBENCH_DATA", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="hf download"):
        locate("stanfordnlp/imdb", FILES)
