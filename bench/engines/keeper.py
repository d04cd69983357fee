"""The keeper: a process between the runner and the job, which leaves nothing of the job behind.

    runner - fork server - keeper - worker - whatever the job starts

The worker does the job: it may hang, crash, close what is open, fork and never let go of the interpreter. The
keeper runs no line of it. It waits for the worker, ends all that the worker has started, and tells the runner
how it ended; it does the same, and ends, when the runner asks or is gone.
"""

import ctypes
import faulthandler
import fcntl
import json
import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from bench.engines.limits import Limits, limit_memory
from bench.processes import descendants

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36

# No answer is longer; a worker may write without end.
_MOST_BYTES = 2**28

# Of what a worker prints, its beginning and its end are kept.
_LOG_HEAD, _LOG_TAIL = 2**22, 2**16

# What was killed is gone within this time, unless the system holds it.
GRACE_S = 10.0


def keep(
    theirs: Connection, scratch: str, job: Callable[[str], str], question: str, limits: Limits, log: str
) -> None:
    """The life of a keeper, in a session of its own.

    Args:
        theirs: to the runner. Sent are an empty message at the start, and at the end the worker's exit code
            with its answer, if it gave one, as a JSON array. A message from the runner means: end.
        scratch: folder for a folder of the worker's temporary files.
        job: a function of a module.
        question: its argument.
        limits: of memory; time is the runner's business.
        log: file for what the worker prints.
    """
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # What loses its parent becomes a child of this process, and is found here.
    _linux(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        theirs.send_bytes(b"")
    except OSError:
        return  # the runner left while its server was importing
    room = tempfile.mkdtemp(prefix="cell-", dir=scratch)
    # Before an answer stands a word that nothing else begins with.
    word = secrets.token_hex(16).encode()
    worker, source, prints = _fork(theirs, room, word, job, question, limits)
    logger = threading.Thread(target=_log, args=(prints, log), daemon=True)
    logger.start()
    threading.Thread(target=_end_on_demand, args=(theirs, room, logger), daemon=True).start()
    ended = _attend(worker, source, word)
    logger.join(1.0)
    shutil.rmtree(room, ignore_errors=True)
    with suppress(OSError):
        theirs.send_bytes(json.dumps(ended).encode())


def _fork(
    theirs: Connection, room: str, word: bytes, job: Callable[[str], str], question: str, limits: Limits
) -> tuple[int, int, int]:
    """A worker at its job: its process, and where to read what it answers and what it prints."""
    keeper = os.getpid()
    source, sink = os.pipe()
    prints, printed = os.pipe()
    worker = os.fork()
    if worker == 0:
        theirs.close()
        os.close(source)
        os.close(prints)
        _end_with(keeper)
        _settle(room, printed, sink)
        _work(sink, word, job, question, limits)
    os.close(sink)
    os.close(printed)
    return worker, source, prints


def _attend(worker: int, source: int, word: bytes) -> tuple[int, str | None]:
    """Wait until a worker and all that it started have ended: its exit code, and its answer, if any."""
    said = bytearray()
    listener = threading.Thread(target=_listen, args=(source, said), daemon=True)
    listener.start()
    _, status = os.waitpid(worker, 0)
    _end_descendants()
    # Nobody is left who could hold the pipe open; where nobody can be found, what is said is there already.
    listener.join(1.0)
    return os.waitstatus_to_exitcode(status), _answer(said, word)


def _work(sink: int, word: bytes, job: Callable[[str], str], question: str, limits: Limits) -> NoReturn:
    """The life of a worker: its limits, then the job."""
    code, own = 1, os.getpid()
    try:
        faulthandler.enable()
        limit_memory(limits.memory_bytes)
        answer = job(question)
        # A job may fork, and both may come back; the first of them was asked.
        if os.getpid() == own:
            _write(sink, word + answer.encode() + b"\n")
            code = 0
    except SystemExit as error:
        traceback.print_exc()
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it goes to the log and no further
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        # Threads and handlers that the job left are not waited for.
        os._exit(code)


def _write(sink: int, message: bytes) -> None:
    left = memoryview(message)
    while left:
        left = left[os.write(sink, left) :]


def _listen(source: int, said: bytearray) -> None:
    while piece := os.read(source, 2**16):
        if len(said) < _MOST_BYTES:
            said += piece


def _answer(said: bytearray, word: bytes) -> str | None:
    """The answer, whatever else was written; None if there is none or it is cut off."""
    _, found, rest = bytes(said).partition(word)
    answer, end, _ = rest.partition(b"\n")
    return answer.decode() if found and end else None


def _log(prints: int, log: str) -> None:
    """Write down what a worker prints as it comes; of what has no end, the beginning and the last."""
    written, left_out, tail = 0, 0, bytearray()
    try:
        with Path(log).open("wb", buffering=0) as file:
            while piece := os.read(prints, 2**16):
                head = piece[: max(_LOG_HEAD - written, 0)]
                written += file.write(head)
                tail += piece[len(head) :]
                left_out += max(len(tail) - _LOG_TAIL, 0)
                del tail[:-_LOG_TAIL]
            file.write(b"\n[%d bytes left out]\n" % left_out if left_out else b"")
            file.write(tail)
    except OSError:
        # A full disk. The worker must not wait for it.
        while os.read(prints, 2**16):
            pass


def _end_on_demand(theirs: Connection, room: str, logger: threading.Thread) -> None:
    """End everything when the runner says so, or is gone."""
    with suppress(EOFError, OSError):
        theirs.recv_bytes()
    _end_descendants()
    logger.join(1.0)
    shutil.rmtree(room, ignore_errors=True)
    # Where descendants cannot be listed, those that stayed in this group are found all the same.
    os.killpg(0, signal.SIGKILL)


def _end_with(keeper: int) -> None:
    """On Linux, have the kernel kill this worker when its keeper is killed."""
    _linux(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)


def _settle(room: str, printed: int, sink: int) -> None:
    """Print to the keeper, and let go of what is nobody's business here."""
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.close(printed)
    _let_go_of_server(sink)
    # A cell finds no temporary file of another, and leaves none.
    os.environ["TMPDIR"] = tempfile.tempdir = room


def _let_go_of_server(sink: int) -> None:
    """Put nothing in the place of pipes that lead to the fork server: what a job wrote there would end it."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (int(path.name) for path in Path("/dev/fd").iterdir()):
        if descriptor > 2 and descriptor != sink and _writes_to_pipe(descriptor):
            os.dup2(null, descriptor)
    os.close(null)


def _writes_to_pipe(descriptor: int) -> bool:
    try:
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        return mode == os.O_WRONLY and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False  # that of the listing itself


def _linux(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_descendants() -> None:
    """Kill what stands below this process, in whatever session, until nothing does."""
    until = time.monotonic() + GRACE_S
    while (left := descendants(os.getpid())) and time.monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
