"""What a call is given must fit together: shapes, types, devices and key masks, by their looks alone."""

import torch
from torch import Tensor


def check_shape(name: str, x: Tensor, axes: tuple[str, ...], **needed: int) -> None:
    """Raise a ValueError that names the axis of x whose length is not the one needed."""
    if x.dim() != len(axes):
        raise ValueError(f"{name} has {x.dim()} axes, but needs {len(axes)}: {', '.join(axes)}")
    for axis, length in zip(axes, x.shape, strict=True):
        if length != needed.get(axis, length):
            raise ValueError(f"{name} has {axis} {length}, but needs {needed[axis]}")


def check_alike(**given: Tensor) -> None:
    """Raise a ValueError unless all are of one floating type and on one device, those of the first."""
    (lead, first), *rest = given.items()
    if not first.is_floating_point():
        raise ValueError(f"{lead} is {first.dtype}, but needs to be of a floating type such as torch.float32")
    for name, x in rest:
        if x.dtype != first.dtype:
            raise ValueError(f"{name} is {x.dtype}, but needs to be {first.dtype}, as {lead} is")
        if x.device != first.device:
            raise ValueError(f"{name} is on {x.device}, but needs to be on {first.device}, as {lead} is")


def check_mask(name: str, mask: Tensor | None, shape: tuple[int, int], device: torch.device) -> None:
    """Raise a ValueError unless the mask, if any, is boolean, of this shape and on this device."""
    if mask is None:
        return
    if mask.shape != shape:
        raise ValueError(f"{name} has shape {tuple(mask.shape)}, but needs {shape}")
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} is {mask.dtype}, but needs to be torch.bool, True for what is kept")
    if mask.device != device:
        raise ValueError(f"{name} is on {mask.device}, but needs to be on {device}")
