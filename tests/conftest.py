"""What all tests share: the order of imports, and which backends there are.

torch is imported before TensorFlow. A missing framework skips its tests; with BLOCKS_REQUIRE=1, as
in CI, it fails them.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of the time goes into compiling small models for JAX; XLA_FLAGS="" compiles them as usual.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import importlib.util
import sys
from itertools import count
from pathlib import Path
from types import ModuleType

if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

import pytest

from blocks._backends import ordered, why_missing

TESTS = count(1)

FRAMEWORKS = [name for name in ordered() if name != "numpy"]


EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    """An example as a module: "02_layers_and_blocks"."""
    if name not in sys.modules:  # where the source of its classes is looked up
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def need(name: str) -> str:
    """The backend, if it is installed."""
    if why := why_missing(name):
        if os.environ.get("BLOCKS_REQUIRE"):
            pytest.fail(why)
        pytest.skip(why)
    return name


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    """Every backend but the reference."""
    return need(request.param)


@pytest.fixture(params=["numpy", *FRAMEWORKS])
def backend(request):
    """Every backend."""
    return need(request.param)


def pytest_runtest_teardown():
    """Lets go of what was compiled: 65,530 memory maps in, Linux kills a process that keeps all
    that JAX compiles; and torch recompiles a function for eight models only.
    """
    if next(TESTS) % 100 == 0 and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "torch._dynamo" in sys.modules:
        sys.modules["torch"].compiler.reset()
