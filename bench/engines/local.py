"""The local engine: one job in one child process, under hard limits of time and memory.

Children are forked from a server that has imported torch once and computed nothing, so a child costs
milliseconds, not the seconds of an import, and yet shares nothing with the one before it.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.engines import server
from bench.engines.keeper import GRACE_S, keep
from bench.engines.limits import Limits

# How faulthandler begins.
_CRASH = "Fatal Python error: "

# The exit code that multiprocessing gives to a child whose server is gone.
_UNKNOWN = 255

# Servers that may be lost in a row before a job is given up.
_STARTS = 5


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
        self._context.set_forkserver_preload([server.__name__, *preload])

    @property
    def scratch(self) -> Path:
        """A folder for files that nobody needs after this command, however it ends."""
        return Path(util.get_temp_dir())

    def run(self, job: Callable[[str], str], question: str, limits: Limits, log: Path) -> Ended:
        """Run `job(question)` in a child and wait for its answer, its end, or its limit.

        Args:
            job: a function of a module; it must be importable by name.
            question: its argument.
            limits: of time and memory.
            log: file for all that the child prints; removed again if it prints nothing.

        Raises:
            OSError: no child could be started.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        keeper, ours = self._start(job, question, limits, str(log))
        started = time.monotonic()
        last, in_time = None, False
        try:
            in_time = ours.poll(limits.seconds)
            if in_time:
                with suppress(EOFError, ConnectionError):
                    last = ours.recv_bytes()
        finally:
            # Also when Ctrl-C comes in between: no child outlives its job.
            _stop(keeper, ours)
        seconds = time.monotonic() - started
        # Two commands may have measured the same cell at the same time.
        with suppress(FileNotFoundError):
            if log.stat().st_size == 0:
                log.unlink()
        code, answer = (_silent(keeper), None) if last is None else json.loads(last)
        return Ended(answer, not in_time, code if in_time else None, seconds)

    def _start(self, *args: object) -> tuple[BaseProcess, Connection]:
        """A keeper at its work. If the server was killed, long ago or just now, another one is started."""
        for tried in range(_STARTS):
            ours, theirs = self._context.Pipe()
            keeper = self._process(keep, theirs, str(self.scratch), *args)
            try:
                with _sound_start(), theirs:
                    keeper.start()
                # The first waits for the server's imports; no job shall pay for them with its time.
                ours.recv_bytes()
            except (OSError, EOFError):
                ours.close()
                time.sleep(0.1 * tried)
            else:
                return keeper, ours
        raise ChildProcessError(f"no child process can be started; {_STARTS} servers of them ended in a row")

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
    # An import may make this folder, and nobody removes it.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(util.get_temp_dir()) / "inductor"))
    os.environ |= {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        server.FOLDER: util.get_temp_dir(),
    }
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _silent(keeper: BaseProcess) -> int | None:
    """The exit code of a keeper that said nothing: it was killed, and perhaps the server that knows too."""
    return -signal.SIGKILL if keeper.exitcode == _UNKNOWN else keeper.exitcode


def _stop(keeper: BaseProcess, ours: Connection) -> None:
    """Have a keeper end what is left and itself; then make sure."""
    assert keeper.pid is not None
    with suppress(OSError):
        ours.send_bytes(b"")
    with suppress(EOFError, OSError):
        while ours.poll(GRACE_S):
            ours.recv_bytes()
    ours.close()
    # The keeper leads a session of its own, so its group is everything that did not leave it.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(keeper.pid, signal.SIGKILL)
    if keeper.is_alive():
        keeper.kill()
    keeper.join()
