"""Status: how a cell, or a probe of one, ended."""

from typing import Literal

Status = Literal["ok", "unsupported", "oom", "timeout", "nan", "wrong", "error", "contaminated"]

STATUSES: dict[Status, str] = {
    "ok": "measured",
    "unsupported": "the variant does not have what was asked",
    "oom": "ran out of memory",
    "timeout": "passed its time limit and was stopped",
    "nan": "gave a number that is not finite",
    "wrong": "gave another output than its own dense twin; not measured",
    "error": "failed with an exception or a signal",
    "contaminated": "measured while the machine was disturbed",
}
