"""The local engine: one job in one child process, under hard limits of time and memory.

Children are forked from a server that has imported torch once and computed nothing, so a child costs
milliseconds, not the seconds of an import, and yet shares nothing with the one before it.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# How faulthandler begins.
_CRASH = "Fatal Python error: "

# A child that has sent its answer gets this long to exit by itself.
_GRACE_S = 10.0


@dataclass(frozen=True)
class Limits:
    """What one job may take.

    Attributes:
        seconds: of wall time, from the start of the child.
        memory_bytes: of private memory; where the system cannot limit it, it is not limited.
    """

    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        answer: what the job returned; None if it ended without an answer.
        timed_out: it was stopped at its time limit.
        exit_code: of the child; negative for the signal that ended it; None if it was stopped.
        seconds: wall time of the child.
    """

    answer: str | None
    timed_out: bool
    exit_code: int | None
    seconds: float

    def how(self, limits: Limits, log: Path | None = None) -> str:
        """How it ended without an answer, in words; with what its log says of that, if it is given."""
        if self.timed_out:
            words = f"stopped after {limits.seconds:g} s"
        elif self.exit_code is not None and self.exit_code < 0:
            words = f"the process was ended by signal {-self.exit_code}"
        else:
            words = f"the process ended by itself with code {self.exit_code}, without an answer"
        printed = log.read_text(errors="replace").split("\n") if log is not None and log.exists() else []
        said = [line.strip() for line in printed if line.strip()]
        # Below what crashed stand the stack and a list of modules.
        crash = (line for line in said if line.startswith(_CRASH))
        last = next(crash, said[-1] if said else None)
        return words if last is None else f"{words}: {last}"


class LocalEngine:
    """Runs jobs one after another, each in a child of its own."""

    def __init__(self, preload: Sequence[str]) -> None:
        """Children start with the modules of `preload` imported."""
        methods = multiprocessing.get_all_start_methods()
        self._context: BaseContext = multiprocessing.get_context(
            "forkserver" if "forkserver" in methods else "spawn"
        )
        self._context.set_forkserver_preload(list(preload))
        # The first child would wait for the server's imports; no job shall pay for them with its time.
        first = self._process(_nothing)
        with _sound_start():
            first.start()
        first.join()

    def run(self, job: Callable[[str], str], question: str, limits: Limits, log: Path) -> Ended:
        """Run `job(question)` in a child and wait for its answer, its end, or its limit.

        Args:
            job: a function of a module; it must be importable by name.
            question: its argument.
            limits: of time and memory.
            log: file for all that the child prints; removed again if it prints nothing.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = self._context.Pipe()
        child = self._process(_child, theirs, job, question, limits, str(log))
        started = time.monotonic()
        child.start()
        theirs.close()
        answer, ended = None, False
        try:
            answer, ended = _listen(ours, child, limits.seconds)
        finally:
            # Also when Ctrl-C comes in between: no child outlives its job.
            _stop(child)
            ours.close()
        seconds = time.monotonic() - started
        if log.exists() and log.stat().st_size == 0:
            log.unlink()
        return Ended(answer, not ended and answer is None, child.exitcode if ended else None, seconds)

    def _process(self, target: Callable[..., None], *args: object) -> BaseProcess:
        return self._context.Process(target=target, args=args)  # pyright: ignore[reportAttributeAccessIssue] - every concrete context has it


@contextmanager
def _sound_start() -> Generator[None]:
    """What a server started in here gets from this process.

    Its modules are those of this process, and not those of the same names in the folder where it starts.
    Ctrl-C does not reach it while it imports: it is for this process alone.
    """
    # It is started with the server otherwise, and lets Ctrl-C through again.
    resource_tracker.ensure_running()
    before = dict(os.environ)
    os.environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _nothing() -> None:
    pass


def _listen(ours: Connection, child: BaseProcess, seconds: float) -> tuple[str | None, bool]:
    """The child's answer, if it gives one; and whether it ended by itself."""
    answer: str | None = None
    ready = wait([ours, child.sentinel], timeout=seconds)
    # An answer and the end may come together; the answer counts.
    if ours in ready or ours.poll():
        with suppress(EOFError, ConnectionError):
            answer = str(ours.recv())
    if ready:
        child.join(_GRACE_S)
    return answer, child.exitcode is not None


def _stop(child: BaseProcess) -> None:
    """End what is left of a child and of all that it started."""
    assert child.pid is not None
    # The child leads a session of its own, so its group is everything that it started.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.is_alive():
        child.kill()
    child.join()


def _child(theirs: Connection, job: Callable[[str], str], question: str, limits: Limits, log: str) -> None:
    """The life of a child: its own session, its limits, its log; then the job."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _end_with_server()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable()
    _limit_memory(limits.memory_bytes)
    threading.Thread(target=_die_with_parent, args=(theirs,), daemon=True).start()
    try:
        theirs.send(job(question))
    except BaseException:
        traceback.print_exc()
        raise


def _limit_memory(most: int) -> None:
    # Private writable memory is what a computation takes; the address space as a whole is not, since
    # torch maps far more than it uses.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _end_with_server() -> None:
    """On Linux, have the kernel kill this child when the fork server ends, as it does with the runner.

    The watcher below does the same everywhere, unless the child holds the interpreter's lock for good.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with_parent(theirs: Connection) -> None:
    """End this child and all it started when the other end of its pipe is gone."""
    with suppress(EOFError, OSError):
        theirs.recv()
    os.killpg(0, signal.SIGKILL)
