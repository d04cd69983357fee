"""What machine and software this is, and what of it is free."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch.backends import cudnn

from results.environment import Environment
from results.point import Device


def environment(device: Device) -> Environment:
    """The facts of this machine that a measurement on `device` depends on."""
    gpu = torch.cuda.get_device_properties(0) if device == "cuda" else None
    commit, dirty = _git()
    return Environment(
        host=hashlib.sha256(platform.node().encode()).hexdigest()[:8],
        os=f"{platform.system()} {platform.release()}",
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory(),
        threads=torch.get_num_threads(),
        gpu=None if gpu is None else gpu.name,
        gpu_memory_bytes=None if gpu is None else gpu.total_memory,
        cuda=None if gpu is None else torch.version.cuda,
        driver=_driver() if gpu is not None else None,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        attnbench=importlib.metadata.version("attnbench"),
        commit=commit,
        dirty=dirty,
    )


def devices() -> list[Device]:
    """Those that are here."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def synchronise(device: Device) -> None:
    """Wait until the device has nothing left to do. On a CPU it never has."""
    if device == "cuda":
        torch.cuda.synchronize()


def mean_float32() -> None:
    """Let float32 be float32: cuDNN would take 10 bits of its 23 in convolutions and recurrences."""
    cudnn.allow_tf32 = False


@functools.cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory() -> int:
    """Bytes of memory that a new process could take now, within the limit of a container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _memory()
    fields = dict(line.split(":", 1) for line in lines)
    return min(int(fields["MemAvailable"].split()[0]) * 1024, _container())


def oom_kills() -> int | None:
    """Processes that the system has ended for want of memory since it started; None if it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    counts = dict(line.split(maxsplit=1) for line in lines)
    return int(counts["oom_kill"]) if "oom_kill" in counts else None


def _container() -> int:
    """What the control group of this process still allows (version 2; elsewhere all of the memory)."""
    group = Path("/sys/fs/cgroup")
    try:
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return _memory()


@functools.cache
def _driver() -> str | None:
    return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")


@functools.cache
def _git() -> tuple[str | None, bool | None]:
    """Commit of the clone that attnbench runs from, and whether it differs from it."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None, None
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - fixed commands
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
