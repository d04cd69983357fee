"""Spec: a variant or a task with its options, written as a call: `window(left=64, right=64)`.

One notation in matrix files, on the command line, in records, tables and legends.
"""

import ast
import math
from typing import Any, TypeGuard

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

Scalar = bool | int | float | str


class Spec(BaseModel):
    """A name and its options. Reads from and writes to the notation; equal options are equal specs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    pairs: tuple[tuple[str, Scalar], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Read `name` or `name(option=value, ...)`; values are numbers, strings, True or False.

        Raises:
            ValueError: the text is not of this form; the message shows it and the form.
        """
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise ValueError(f"cannot read {text!r}: {_FORM}") from None
        if isinstance(tree, ast.Name):
            return cls(name=tree.id)
        if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)) or tree.args:
            raise ValueError(f"cannot read {text!r}: {_FORM}")
        names = [word.arg for word in tree.keywords]
        if len(set(names)) < len(names):
            raise ValueError(f"cannot read {text!r}: an option is given twice")
        return cls(name=tree.func.id, pairs=tuple(sorted(_option(word, text) for word in tree.keywords)))

    @property
    def options(self) -> dict[str, Scalar]:
        """The options, by name."""
        return dict(self.pairs)

    def __str__(self) -> str:
        if not self.pairs:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.pairs)})"

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:  # pyright: ignore[reportExplicitAny] - pydantic hands over raw input
        if not isinstance(value, str):
            return value
        spec = cls.parse(value)
        return {"name": spec.name, "pairs": spec.pairs}

    @model_serializer
    def _write(self) -> str:
        return str(self)


_FORM = "write name or name(option=value, ...), for example window(left=64, right=64)"


def _option(word: ast.keyword, text: str) -> tuple[str, Scalar]:
    if word.arg is None:
        raise ValueError(f"cannot read {text!r}: {_FORM}")
    try:
        value: object = ast.literal_eval(word.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not _can_be_written(value):
        raise ValueError(
            f"cannot read {text!r}: the value of {word.arg} must be a finite number, a quoted string, True or"
            " False"
        )
    return word.arg, value


def _can_be_written(value: object) -> TypeGuard[Scalar]:
    """Whether a value reads back from the notation and from JSON as what it is."""
    if isinstance(value, str):
        return all(not 0xD800 <= ord(letter) <= 0xDFFF for letter in value)  # half a pair is no UTF-8
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
