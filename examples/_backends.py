"""What the examples share: which backends to show, and where to draw."""

import argparse

import blocks as bl

NAMES = ("numpy", "torch", "keras", "flax")


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Shows the networks on one or all backends.")
    parser.add_argument("--backend", default="all", choices=(*NAMES, "all"))
    parser.add_argument("--plot", metavar="FILE.png", help="where to draw, if there is a picture")
    return parser.parse_args()


def chosen() -> list[str]:
    """The backends that `--backend` asks for, as far as they are installed."""
    wanted = options().backend
    return [name for name in NAMES if wanted in (name, "all") and usable(name)]


def picture() -> str | None:
    """The file that `--plot` asks for."""
    file: str | None = options().plot
    return file


def usable(name: str) -> bool:
    """Whether its framework is installed; if not, say so."""
    try:
        bl.source(bl.Identity(), name, input_shape=(1,))
    except bl.BackendError as error:
        print(f"# left out: {error}\n")
        return False
    return True
