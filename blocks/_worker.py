"""A process of its own that answers requests: one line of JSON each way, over its pipes.

The other end is a module that hands its functions to `serve`. What a framework prints goes to
standard error, of which the end is kept: it says why a process ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from blocks._errors import BlockError

TAIL = 2000  # bytes of standard error that are kept


class WorkerError(Exception):
    """A request failed; `kind` is the name of the error's class, "" if the process ended."""

    def __init__(self, text: str, kind: str = ""):
        super().__init__(text)
        self.kind = kind


class Worker:
    """Runs a module in a new process, with the import path of this one.

    Its temporary folder is its own and goes with it: nothing is found there that was compiled
    before. Threads that wait do not spin.

    Args:
        module: its import name.
        argument: what it is started with.
        environ: variables that it has beside those of this process.
    """

    def __init__(self, module: str, argument: str, environ: Mapping[str, str]):
        self.folder = tempfile.TemporaryDirectory(prefix="isoblocks-", ignore_cleanup_errors=True)
        self.errors = Path(self.folder.name) / "stderr"
        own = {
            "PYTHONPATH": os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path),
            "OMP_WAIT_POLICY": "PASSIVE",
            "TMPDIR": self.folder.name,
        }
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(  # noqa: S603  (a module of our own)
                [sys.executable, "-P", "-W", "ignore", "-m", module, argument],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env={**os.environ, **own, **environ},
                start_new_session=True,  # so that what it starts itself ends with it
            )
        self.answers: Queue[str] = Queue()
        self.listener = Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self) -> None:
        """Put every line where `ask` waits for it, and at the end an empty one."""
        with self.process.stdout as lines:  # type: ignore[union-attr]
            for line in lines:
                self.answers.put(line)
        self.answers.put("")

    def ask(self, call: str, patience: float, **arguments: Any) -> Any:
        """What a function of the module returns.

        Raises:
            WorkerError: if it raises, does not answer within so many seconds, or ends.
        """
        try:
            print(json.dumps([call, arguments]), file=self.process.stdin, flush=True)
            line = self.answers.get(timeout=patience)
        except OSError:
            line = ""
        except Empty:
            self.close()
            raise WorkerError(f"did not answer within {patience:g} s, and was ended") from None
        if not line.endswith("\n"):  # it ended before its answer did
            raise WorkerError(self.obituary())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"], answer["kind"])
        return answer["value"]

    def obituary(self) -> str:
        """How the process ended, and its last words."""
        code = self.process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        if how == "by SIGKILL":  # by the system, and no words of its own say why
            return f"its process ended {how}, as where memory runs out"
        words = self.errors.read_bytes()[-TAIL:].decode("utf-8", "replace").strip()
        return f"its process ended {how}" + (f": {words.splitlines()[-1]}" if words else "")

    def close(self) -> None:
        """End the process, and all that it started."""
        if self.process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
            self.process.wait()
        with suppress(OSError):  # what nobody read any more
            self.process.stdin.close()  # type: ignore[union-attr]
        self.listener.join(timeout=5)
        self.folder.cleanup()


def serve(calls: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests until nobody is there any more.

    They come and go over copies of standard input and output, which themselves become empty and
    standard error: nothing that is printed gets between answers, and nobody else reads requests.
    """
    requests, answers = (os.fdopen(os.dup(i), "rw"[i], encoding="utf-8") for i in (0, 1))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    with requests, answers:
        for line in requests:
            call, arguments = json.loads(line)
            answer: dict[str, Any]
            try:
                answer = {"value": calls[call](**arguments)}
            except Exception as error:  # of any kind: it is told to who asked
                answer = {"error": told(error), "kind": type(error).__name__}
            print(json.dumps(answer), file=answers, flush=True)


def told(error: Exception) -> str:
    """An error in one line; of a framework's own long ones the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, BlockError):
        return " ".join(lines)[:500]
    return ": ".join([type(error).__name__, *lines[:1]])[:500]
