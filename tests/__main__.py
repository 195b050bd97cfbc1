"""Everything that CI checks, in order: `python -m tests`. Arguments go to pytest."""

import subprocess
import sys

CHECKS = [
    ["ruff", "format", "--check", "."],
    ["ruff", "check", "."],
    ["mypy"],
    ["pytest", "-q", *sys.argv[1:]],
]

for check in CHECKS:
    print("$", *check, flush=True)
    status = subprocess.run([sys.executable, "-m", *check]).returncode
    if status:
        sys.exit(status)
