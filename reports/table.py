"""A table beside the plots: short to read as Markdown and on the page, complete as CSV."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Table:
    """A table: its head and rows in words to read, and the numbers in full in `data`."""

    name: str
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: pd.DataFrame

    def markdown(self) -> str:
        """Title, note and a pipe table."""
        lines = [self.head, tuple("---" for _ in self.head), *self.rows]
        table = "\n".join("| " + " | ".join(_cell(word) for word in line) + " |" for line in lines)
        return f"# {self.title}\n\n{self.note}\n\n{table}\n"

    def save(self, folder: Path) -> None:
        """Write `<name>.md` and `<name>.csv`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.md").write_text(self.markdown(), encoding="utf-8")
        self.data.to_csv(folder / f"{self.name}.csv", index=False, lineterminator="\n")


def _cell(word: str) -> str:
    return word.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
