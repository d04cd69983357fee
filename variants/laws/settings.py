"""Settings that all variants of a process share, and which nobody may change under the others."""

import gc
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch.backends import cuda, cudnn


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(given: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(given[0], warn_only=given[1])


def _fused() -> tuple[bool, bool, bool]:
    return cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()


def _set_fused(given: tuple[bool, bool, bool]) -> None:
    cuda.enable_flash_sdp(given[0])
    cuda.enable_mem_efficient_sdp(given[1])
    cuda.enable_math_sdp(given[2])


def _cudnn() -> tuple[bool, bool, bool]:
    return cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32


def _set_cudnn(given: tuple[bool, bool, bool]) -> None:
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = given


def _denormals_vanish() -> bool:
    # Torch does not tell, so a number is asked.
    return float(torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 1.0) == 0.0


def _set_environment(given: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(given)


def _set_collection(given: bool) -> None:
    gc.enable() if given else gc.disable()


def _priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def _set_priority(given: int) -> None:
    # Nobody but the administrator may take it back.
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, given)


# How each is read and written, by name.
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the default type": (torch.get_default_dtype, torch.set_default_dtype),
    "the default device": (torch.get_default_device, torch.set_default_device),
    "whether gradients are recorded": (torch.is_grad_enabled, torch.set_grad_enabled),
    "whether anomalies are detected": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "deterministic algorithms": (_deterministic, _set_deterministic),
    "the precision of float32 products": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "the choice of fused kernels": (_fused, _set_fused),
    "the choice of cuDNN kernels": (_cudnn, _set_cudnn),
    "whether denormal numbers are 0": (_denormals_vanish, torch.set_flush_denormal),
    "whether garbage is collected": (gc.isenabled, _set_collection),
    "the priority of the process": (_priority, _set_priority),
    "the folder": (Path.cwd, os.chdir),
    "the environment": (lambda: dict(os.environ), _set_environment),
}


def settings() -> dict[str, object]:
    """All of them, as they are now."""
    return {name: read() for name, (read, _) in _SETTINGS.items()}


@contextmanager
def restored() -> Generator[None, None, None]:
    """Put back what changes within, lest one variant decides how the next is asked."""
    before = settings()
    try:
        yield
    finally:
        for name, value in settings().items():
            if value != before[name]:
                _SETTINGS[name][1](before[name])
