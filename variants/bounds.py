"""Which values an option may have, and when it has none that count."""

from inspect import signature

# Of options that count positions or blocks: what none has more of. Products of two fit into 64 bits.
LONGEST = 2**31 - 1

# Of options that say how many numbers are drawn or carried: time and memory have no other bound.
LARGEST = 2**16

# Of options that repeat something: after far fewer, nothing changes any more but the time.
MOST_ROUNDS = 2**6


def check_range(least: int, most: int = LONGEST, step: int = 1, /, **options: int) -> None:
    """Raise a ValueError for the first option that is not among least, least + step, ... up to most.

    Args:
        least: the smallest value.
        most: the largest, or what the largest is below.
        step: 1, or 2 where values are to be even, or odd, as least is.
        options: values by their names.
    """
    valid = range(least, most + 1, step)
    for name, value in options.items():
        if value in valid:
            continue
        kind = "" if step == 1 else "odd and " if least % 2 else "even and "
        bound = f"at most {valid[-1]}" if value > valid[-1] else f"at least {least}"
        near = f"; {value - 1} and {value + 1} are" if least < value < valid[-1] else ""
        raise ValueError(f"{name} must be {kind}{bound}, not {value}{near}")


def check_idle(idle: bool, cls: type, when: str, /, **options: object) -> None:
    """Where options are idle, raise a ValueError for the first that is not at its default.

    Args:
        idle: whether they do nothing.
        cls: whose constructor has the defaults.
        when: the end of the sentence.
        options: values by their names.
    """
    defaults = signature(cls).parameters
    for name, value in options.items():
        if idle and value != defaults[name].default:
            raise ValueError(f"{name} = {value!r} does nothing {when}; leave it out")
