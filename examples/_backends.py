"""What the examples share: which backends to show."""

import argparse

import blocks as bl

NAMES = ("numpy", "torch", "keras", "flax")


def chosen() -> list[str]:
    """The backends that `--backend` asks for, as far as they are installed."""
    parser = argparse.ArgumentParser(description="Shows the networks on one or all backends.")
    parser.add_argument("--backend", default="all", choices=(*NAMES, "all"))
    wanted = parser.parse_args().backend
    return [name for name in NAMES if wanted in (name, "all") and usable(name)]


def usable(name: str) -> bool:
    """Whether its framework is installed; if not, say so."""
    try:
        bl.source(bl.Identity(), name, input_shape=(1,))
    except bl.BackendError as error:
        print(f"# left out: {error}\n")
        return False
    return True
