"""What a process of `blocks._worker` serves in its tests."""

import os
import subprocess
import sys
import time

from blocks._errors import FieldError
from blocks._worker import serve


def echo(value):
    print("a framework says this on standard output")
    os.write(1, b"and this below Python\n")
    subprocess.run([sys.executable, "-c", "import sys; print(sys.stdin.read())"], check=True)
    return value


def fail(kind):
    if kind.startswith("ours"):
        raise FieldError("rate must be below 1." + "\n  Write rate=0.5." * (kind != "ours"))
    if kind == "without words":
        raise MemoryError
    raise ZeroDivisionError("by 0\nand a traceback")


def break_off():
    answers = sys._getframe(1).f_locals["answers"]
    answers.write('{"value": [1, 2')
    answers.flush()
    os._exit(3)


def die(words):
    print(words, file=sys.stderr, flush=True)
    os.abort()


def sleep(seconds):
    time.sleep(seconds)


def folders():
    return os.environ["TMPDIR"], sys.argv[1], os.environ["GREETING"], sys.path


if __name__ == "__main__":
    serve({f.__name__: f for f in (echo, fail, break_off, die, sleep, folders)})
