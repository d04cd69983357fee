"""The digest of a network's weights: two trainings came to the same, or they did not."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(state: Mapping[str, object]) -> str:
    """SHA-256 of a state dict, in the order of its names: types, shapes and bytes of all tensors.

    What is no tensor counts as it is written out.
    """
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, Tensor):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            found.update(f"{name} {value!r}\n".encode())
    return found.hexdigest()
