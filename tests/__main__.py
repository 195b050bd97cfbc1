"""Everything that CI checks, in order: `python -m tests`. Arguments go to pytest."""

import subprocess
import sys

# Two processes, each of which loads all frameworks and takes up to 6 GiB; in order, so that tests
# of one file share what JAX compiles.
PROCESSES = ["-n", "2", "--dist", "worksteal"]

CHECKS = [
    ["ruff", "format", "--check", "."],
    ["ruff", "check", "."],
    ["mypy"],
    ["pytest", "-q", *PROCESSES, *sys.argv[1:]],
]

for check in CHECKS:
    print("$", *check, flush=True)
    status = subprocess.run([sys.executable, "-m", *check]).returncode
    if status:
        sys.exit(status)
