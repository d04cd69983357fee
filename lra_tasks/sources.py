"""Where a published data set lies: in a folder of the user's, or in the public hub's cache."""

import contextlib
import difflib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile

VARIABLE = "ATTNBENCH_DATA"

# Where people unpack the Long Range Arena release: its archive holds a folder of its own name, twice.
RELEASE = ("", "lra_release", "lra_release/lra_release")

# What the hub and its transports raise: no answer, a refusal, and (an OSError too) nothing in the cache.
_FAILURES = (HfHubHTTPError, OfflineModeIsEnabled, OSError)


@dataclass(frozen=True)
class Published:
    """Files of one data set on the public hub.

    Attributes:
        repository: "owner/name".
        files: paths inside the repository.
        bytes: of all files together, about, where they are so many that one must hear of it in time.
        release: the folder of the Long Range Arena release that has files of the same names, if one does.
    """

    repository: str
    files: tuple[str, ...]
    bytes: int | None = None
    release: str | None = None

    def locate(self) -> list[Path]:
        """The paths of the files, which are here; nothing is downloaded.

        If the variable `ATTNBENCH_DATA` names a folder, they are looked for there and nowhere else, below
        the repository's name with or without its owner, or in the release: a folder that was named on
        purpose and lacks them is a mistake to hear about. Without the variable they lie in the cache of
        huggingface_hub.

        Raises:
            FileNotFoundError: they are not there; the message says what to do.
        """
        if folder := os.environ.get(VARIABLE):
            return self._below(Path(folder))
        try:
            return [
                Path(hf_hub_download(self.repository, file, repo_type="dataset", local_files_only=True))
                for file in self.files
            ]
        except _FAILURES as error:
            raise FileNotFoundError(
                f"{self._called} is not in the hub's cache; `attnbench prepare` downloads it. "
                + self._advice(Path(f"${VARIABLE}"))
            ) from error

    def fetch(self, say: Callable[[str], None]) -> list[Path]:
        """The paths of the files, downloaded where they are not here: sizes said first, hashes checked after.

        A download that was cut off goes on where it ended. In a folder that `ATTNBENCH_DATA` names nothing
        is written.

        Raises:
            FileNotFoundError: they are neither here nor on the hub as far as it can be reached.
            OSError: what was downloaded is not what the hub has.
        """
        try:
            return self.locate()
        except FileNotFoundError:
            if os.environ.get(VARIABLE):
                raise
        try:
            found = HfApi().get_paths_info(self.repository, list(self.files), repo_type="dataset")
            entries = {entry.path: entry for entry in found if isinstance(entry, RepoFile)}
            if lost := [file for file in self.files if file not in entries]:
                raise FileNotFoundError(f"the hub has no {lost[0]}")
            sizes = ", ".join(f"{file} {size(entries[file].size)}" for file in self.files)
            say(f"downloading {self.repository}: {sizes}")
            paths = [Path(hf_hub_download(self.repository, f, repo_type="dataset")) for f in self.files]
        except _FAILURES as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise FileNotFoundError(
                f"{self._called} is not in the hub's cache and could not be downloaded ({reason}). "
                + self._advice(Path(f"${VARIABLE}"))
            ) from error
        for file, path in zip(self.files, paths, strict=True):
            told = entries[file].lfs
            if told is not None and sha256(path) != told.sha256:
                raise OSError(
                    f"{path} has the SHA-256 {sha256(path)}, but {file} of {self.repository} has "
                    f"{told.sha256}; remove {path.resolve()} and download it again"
                )
        return paths

    def _below(self, folder: Path) -> list[Path]:
        """The files below a folder of the user's."""
        homes = [folder / self.repository.split("/")[-1], folder / self.repository]
        for home in homes:
            paths = [home / file for file in self.files]
            if all(path.is_file() for path in paths):
                return paths
        if self.release is not None:
            with contextlib.suppress(FileNotFoundError):
                return released(self.release, [Path(file).name for file in self.files])
        home = next((home for home in homes if home.is_dir()), homes[0])
        missing = next(home / file for file in self.files if not (home / file).is_file())
        raise FileNotFoundError(
            f"{VARIABLE} is {folder}, but {missing} does not exist{_nearest(missing)}. "
            + self._advice(folder)
        )

    def _advice(self, folder: Path) -> str:
        """What to do about missing files."""
        home = folder / self.repository.split("/")[-1]
        unpacked = f", or unpack lra_release.gz there for {self.release}" if self.release is not None else ""
        return (
            f"Put {' and '.join(self.files)} below {home}, with {VARIABLE} set to the folder above it, for "
            f"example by hf download {self.repository} {' '.join(self.files)} --repo-type dataset "
            f"--local-dir {home}{unpacked}; or unset {VARIABLE} on a machine that reaches the hub."
        )

    @property
    def _called(self) -> str:
        """The data set, with its size if that is known without asking."""
        return self.repository if self.bytes is None else f"{self.repository} ({size(self.bytes)})"


def released(home: str, files: Sequence[str]) -> list[Path]:
    """The paths of files of the Long Range Arena release, unpacked below `ATTNBENCH_DATA`.

    Args:
        home: their folder in the release, e.g. "listops-1000".
        files: paths inside that folder.

    Raises:
        FileNotFoundError: they are not there; the message shows the tree that is looked for.
    """
    folder = os.environ.get(VARIABLE)
    for above in RELEASE if folder else ():
        paths = [Path(str(folder), above, home, file) for file in files]
        if all(path.is_file() for path in paths):
            return paths
    where = f"{VARIABLE} is {folder}" if folder else f"{VARIABLE} names no folder"
    tree = " and ".join(f"{home}/{file}" for file in files)
    raise FileNotFoundError(
        f"{where}; the Long Range Arena release is looked for there: {tree}, as they are or below "
        f"{' or '.join(filter(None, RELEASE))}. Unpack lra_release.gz (a tar archive in spite of its name) "
        f"and set {VARIABLE} to the folder above lra_release"
    )


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(count: int) -> str:
    """Bytes as people say them."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_:
            return f"{count / bytes_:.3g} {unit}"
    return f"{count} bytes"


def _nearest(missing: Path) -> str:
    """The deepest folder on the way that does exist, and what of it comes closest."""
    parent = next(parent for parent in missing.parents if parent.is_dir())
    wanted = missing.relative_to(parent).parts[0]
    names = sorted(entry.name for entry in parent.iterdir())
    if close := difflib.get_close_matches(wanted, names, n=1):
        return f" (the nearest is {parent / close[0]})"
    return f" ({parent} holds {', '.join(names[:8]) or 'nothing'})"
