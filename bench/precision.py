"""In which type products are computed."""

from contextlib import AbstractContextManager, nullcontext

import torch


def mixed(device: str, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Products in this type, by torch.autocast; None: nothing is entered, which takes its time.

    It is for forward passes alone: backward passes compute in the types that forward ones left.
    """
    return nullcontext() if dtype is None else torch.autocast(device, dtype)
