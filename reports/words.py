"""Numbers as people write them, and what they say in words."""

import re

from reports.statistics import Estimate


def short(length: float) -> str:
    """A length as people write it: 256, 1k, 64k, 1M."""
    for unit, size in (("M", 2**20), ("k", 2**10)):
        if length >= size and length % size == 0:
            return f"{length / size:g}{unit}"
    return f"{length:g}"


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits; whole, with commas, where it is larger; "" for none."""
    if value is None:
        return ""
    if abs(value) >= 10 ** (digits - 1):
        return f"{float(f'{value:.{digits}g}'):,.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if value else "0"


def percent(share: float | None) -> str:
    """A share in %, to three digits; "" for none."""
    return "" if share is None else number(100 * share)


def whole(value: float | None) -> str:
    """A count, with commas; "" for none."""
    return "" if value is None else f"{value:,.0f}"


def interval(found: Estimate | None, *, factor: float = 1.0, digits: int = 3) -> str:
    """`value [low, high]`; the value alone where the interval is not known."""
    if found is None:
        return ""
    middle = number(factor * found.value, digits)
    if found.low is None or found.high is None:
        return middle
    return f"{middle} [{number(factor * found.low, digits)}, {number(factor * found.high, digits)}]"


def faster(variant: str, against: str, ratio: Estimate) -> str:
    """Which of the two is faster, in words; the ratio is time of variant over time of against."""
    if ratio.low is None or ratio.high is None:
        return "too few pairs to say"
    if ratio.low <= 1 <= ratio.high:
        return "no difference shown"
    if ratio.value < 1:
        return f"{variant} is faster: {against} takes {number(1 / ratio.value)} times as long"
    return f"{against} is faster: {variant} takes {number(ratio.value)} times as long"


def slug(text: str) -> str:
    """The text as part of a file name: letters, digits and single hyphens."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text).split())


def distinct(name: str, taken: dict[str, int]) -> str:
    """The name, with a number where it was given before; `taken` counts what was given."""
    taken[name] = taken.get(name, 0) + 1
    return name if taken[name] == 1 else f"{name}-{taken[name]}"


def natural(text: str) -> str:
    """A key to sort texts by, in which distance=8 comes before distance=32."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(12), text)
