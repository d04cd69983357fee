"""Where a published data set lies: in a folder of the user's, or in the public hub's cache."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

VARIABLE = "ATTNBENCH_DATA"


def locate(repository: str, files: Sequence[str]) -> list[Path]:
    """The paths of a data set's files, in the order in which they are asked for.

    If the variable `ATTNBENCH_DATA` names a folder, the files are looked for there and nowhere else, below
    the repository's name with or without its owner: a folder that was named on purpose and lacks them is a
    mistake to hear about, not a reason to download. Without the variable they are downloaded once into the
    cache of huggingface_hub and found there from then on.

    Args:
        repository: the data set on the hub, "owner/name".
        files: paths inside the repository.

    Raises:
        FileNotFoundError: they are not there, or cannot be downloaded; the message says what to do.
    """
    if folder := os.environ.get(VARIABLE):
        return _below(Path(folder), repository, files)
    try:
        return [Path(hf_hub_download(repository, file, repo_type="dataset")) for file in files]
    # What the hub and its transports raise: no answer, a refusal, and (an OSError too) nothing in the cache.
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(
            f"{repository} is not in the hub's cache and could not be downloaded ({reason}). "
            + _advice(Path(f"${VARIABLE}"), repository, files)
        ) from error


def _below(folder: Path, repository: str, files: Sequence[str]) -> list[Path]:
    """The files below a folder of the user's."""
    homes = [folder / repository.split("/")[-1], folder / repository]
    for home in homes:
        paths = [home / file for file in files]
        if all(path.is_file() for path in paths):
            return paths
    home = next((home for home in homes if home.is_dir()), homes[0])
    missing = next(home / file for file in files if not (home / file).is_file())
    raise FileNotFoundError(
        f"{VARIABLE} is {folder}, but {missing} does not exist{_nearest(missing)}. "
        + _advice(folder, repository, files)
    )


def _nearest(missing: Path) -> str:
    """The deepest folder on the way that does exist, and what of it comes closest."""
    parent = next(parent for parent in missing.parents if parent.is_dir())
    wanted = missing.relative_to(parent).parts[0]
    names = sorted(entry.name for entry in parent.iterdir())
    if close := difflib.get_close_matches(wanted, names, n=1):
        return f" (the nearest is {parent / close[0]})"
    return f" ({parent} holds {', '.join(names[:8]) or 'nothing'})"


def _advice(folder: Path, repository: str, files: Sequence[str]) -> str:
    """What to do about missing files."""
    home = folder / repository.split("/")[-1]
    return (
        f"Put {' and '.join(files)} below {home}, with {VARIABLE} set to the folder above it, for example by "
        f"hf download {repository} {' '.join(files)} --repo-type dataset --local-dir {home}; "
        f"or unset {VARIABLE} on a machine that reaches the hub."
    )
