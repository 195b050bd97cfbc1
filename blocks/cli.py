"""The command line: `isoblocks demo|summary|source|parity|compare|import`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from blocks._arrays import replacing, writable
from blocks._block import Block
from blocks._console import silenced
from blocks._draw import draw
from blocks._errors import BlockError, FieldError, FileError, did_you_mean
from blocks._files import load as load_file
from blocks._infer import infer
from blocks._lint import lint
from blocks._param_files import load_params_file
from blocks._spec import FLOATS, LAYOUTS, Node
from blocks.optimizer import SGD, Adagrad, Adam, AdamW

OPTIMIZERS = {kind.__name__: kind for kind in (SGD, Adagrad, Adam, AdamW)}
BESIDE = ".certificate.json"  # the ending of what is written beside a page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns the exit status: 0, 1 if backends disagree or weights do not fit, 2 for a mistake, 130
    if it was interrupted.
    """
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except BlockError as error:
        print(printable(f"{type(error).__name__}: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def printable(text: str) -> str:
    """A text without what a file of strangers could say to the terminal itself."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="isoblocks",
        description="Write a network once, as blocks; get it in PyTorch, Keras, Flax and NumPy.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    losses = "mse, mae, cross_entropy, binary_cross_entropy, or module.py:name of one"

    command = commands.add_parser("demo", help="train one network on every installed backend")
    command.add_argument("--epochs", type=int, default=8, help="how often the digits are seen")
    command.add_argument("--plot", metavar="FILE.png", help="draw the curves")
    command.set_defaults(run=run_demo)

    command = network_command(commands, "summary", "show what a network is made of")
    command.add_argument("--lint", action="store_true", help="and what is probably not meant")
    command.add_argument(
        "--svg",
        metavar="FILE.svg",
        nargs="?",
        const="-",
        help="and draw it, as a diagram; without a file, print its SVG and nothing else",
    )
    command.set_defaults(run=run_summary)

    command = network_command(commands, "source", "print a network as code of a framework")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--backend", metavar="NAME")
    which.add_argument("--all", action="store_true", help="every backend that is installed")
    command.add_argument(
        "-o",
        "--output",
        metavar="DIR|FILE.py",
        help="a folder for listings that load parameters, and their parameters; or one listing",
    )
    command.add_argument("--params", metavar="FILE.safetensors", help="parameters for the folder")
    command.add_argument("--seed", type=int, default=0, help="of parameters that are not given")
    command.set_defaults(run=run_source)

    command = network_command(commands, "parity", "compare a network over backends", nargs="?")
    command.add_argument(
        "--backends", metavar="NAME,NAME", help="all that are installed if left out"
    )
    command.add_argument("--seed", type=int, help="of parameters and inputs; 0 if left out")
    command.add_argument("--loss", metavar="NAME", help=f"of the loss curve: {losses}")
    command.add_argument(
        "--certificate", metavar="FILE.json", help="write what was measured, block by block"
    )
    command.add_argument(
        "--verify",
        metavar="FILE.json",
        help="measure again what a certificate says, or a comparison; of FILE, if that is given",
    )
    command.add_argument(
        "--custom", metavar="MODULE:CLASS", action="append", default=[], help="that files may name"
    )
    command.set_defaults(run=run_parity)

    command = network_command(commands, "import", "read weights that torch, Keras or Flax saved")
    command.add_argument("weights", metavar="WEIGHTS", help="such as resnet.pth or net.keras")
    command.add_argument("-o", "--output", metavar="OUT.safetensors", help="parameters to write")
    command.add_argument("--framework", choices=("torch", "keras", "flax"))
    command.add_argument(
        "--rename", action="append", default=[], metavar="NAME=PATH", help="which layer is which"
    )
    command.add_argument("--flattened", choices=LAYOUTS, help="how the other model flattens")
    command.set_defaults(run=run_import)

    command = network_command(commands, "compare", "what a network costs on each framework, here")
    command.add_argument(
        "--backends", metavar="NAME,NAME", help="all that are installed if left out"
    )
    command.add_argument(
        "--contenders",
        metavar="NAME,NAME",
        help='such as "torch compiled,keras jax"; all if left out',
    )
    command.add_argument("--batch-sizes", metavar="N,N", default="1,32", help="of the outputs")
    command.add_argument("--loss", metavar="NAME", default="mse", help=f"of training: {losses}")
    command.add_argument("--optimizer", choices=OPTIMIZERS, default="SGD")
    command.add_argument("--training-batch", metavar="N", type=int, default=32)
    command.add_argument("--rounds", type=int, default=15, help="how often all are timed in turn")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "-o", "--output", metavar="FILE.json", help="write what was measured, for parity --verify"
    )
    command.add_argument(
        "--html",
        metavar="FILE.html",
        help=f"write it as a page, and that as FILE{BESIDE} beside it",
    )
    command.set_defaults(run=run_compare)

    return top


def network_command(commands: Any, name: str, help: str, **file: Any) -> Any:
    """A command on a network: where it is, and at which input."""
    command = commands.add_parser(name, help=help)
    where = "net.json, or module.py:name of a block"
    command.add_argument("file", metavar="FILE", help=where, **file)
    command.add_argument(
        "--input",
        metavar="SIZES",
        help="such as 8,8,1, ? for any length, '8,8,1;5' for two; may be left out if FILE has it",
    )
    command.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0])
    command.add_argument("--dtype", choices=FLOATS, default=FLOATS[0])
    return command


def run_demo(options: Any) -> int:
    from blocks.demo import demo

    if options.epochs < 1:
        raise FieldError(f"--epochs must be a positive int, got {options.epochs}.")
    demo(epochs=options.epochs, plot=options.plot)
    return 0


def run_summary(options: Any) -> int:
    from blocks._summary import Summary

    console, node = Console(), node_of(options)
    if options.svg == "-":
        print(draw(node).svg)
        return 0
    console.print(Summary(node))
    if options.lint:
        console.print(lint(node))
    if options.svg is not None:
        draw(node).save(options.svg)
    return 0


def run_source(options: Any) -> int:
    from blocks._export import write_text
    from blocks._models import source

    into_folder = options.output is not None and Path(options.output).suffix != ".py"
    if options.all and not into_folder:
        raise FieldError("--all writes several files: add -o DIR.")
    if options.params and not into_folder:
        raise FieldError("--params are written beside the listings: add -o DIR.")
    node = node_of(options)
    imported(None if options.all else [options.backend])
    if into_folder:
        return export_folder(node, options)
    text = source(node, options.backend, seed=options.seed, loading=options.output is not None)
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text)
    return 0


def export_folder(node: Node, options: Any) -> int:
    """Write listings and parameters, and say what was written and what was left out."""
    from blocks._backends import missing
    from blocks._export import export_source

    params = load_params_file(options.params) if options.params else None
    backends = None if options.all else [options.backend]
    for path in export_source(
        node, options.output, backends=backends, params=params, seed=options.seed
    ):
        print(f"wrote {path}")
    for why in missing().values() if options.all else ():
        print(f"left out: {why}", file=sys.stderr)
    return 0


def run_parity(options: Any) -> int:
    if options.custom:
        sys.path.insert(0, str(Path.cwd()))  # where it looks for modules, as python -m does
    if options.verify:
        return run_verify(options)
    from blocks._certificate import certify
    from blocks._parity import parity

    if options.file is None:
        raise FieldError("parity needs a network, or --verify FILE.json.")
    if options.certificate:
        check_place(options.certificate)  # before all is measured
    console, node = Console(), node_of(options, options.custom)
    backends = imported(words(options.backends))
    measure: Any = certify if options.certificate else parity
    how = {"seed": options.seed or 0, "loss": loss_of(options.loss or "mse")}
    with console.status("comparing"):
        report = measure(node, backends=backends, **how)
    console.print(report)
    if options.certificate:
        report.save(options.certificate)
    return 0 if report else 1


def run_compare(options: Any) -> int:
    from blocks._compare import compare

    output = options.output or (options.html and Path(options.html).with_suffix(BESIDE))
    for path in filter(None, (options.html, output)):
        check_place(path)  # before all is measured
    with ending():
        found = compare(
            node_of(options),
            backends=words(options.backends),
            contenders=words(options.contenders),
            batch_sizes=counts("--batch-sizes", options.batch_sizes),
            loss=loss_of(options.loss),
            optimizer=OPTIMIZERS[options.optimizer](),
            training_batch=options.training_batch,
            rounds=options.rounds,
            seed=options.seed,
            progress=True,
        )
    console = Console()
    console.print(found)
    if output:
        found.save(output)
    if options.html:
        from blocks._report import page

        text = page(found)
        with replacing(options.html) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0 if found else 1


def imported(backends: list[str] | None) -> list[str]:
    """The backends of those names, all that are installed if None, without the frameworks' notes
    on being imported.
    """
    from blocks._backends import find_backend, installed

    with silenced():
        if backends is None:
            return installed()
        for name in backends:
            find_backend(name)
        return backends


def loss_of(text: str) -> Any:
    """A loss by its name, or that `module.py:name` names."""
    return load(text) if ":" in text else text


def check_place(path: str) -> None:
    """Refuse a file that could not be written."""
    if not os.access(writable(path).parent, os.W_OK):
        raise FileError(f"{path} cannot be written: its folder is missing, or is not yours.")


@contextmanager
def ending() -> Iterator[None]:
    """Let SIGTERM end this process as an error does: processes and files that it made go too."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def words(text: str | None) -> list[str] | None:
    """The names in a list such as "numpy,torch"; None if there is no list."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def counts(option: str, text: str) -> list[int]:
    """The numbers in a list such as "1,32"."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise FieldError(f"{option} must be numbers such as 1,32, got {text!r}.") from None


def run_verify(options: Any) -> int:
    from blocks._backends import why_missing
    from blocks._certificate import load_either, verify
    from blocks._files import fingerprint

    stated = ("backends", "seed", "loss", "certificate", *(() if options.file else ("input",)))
    if given := [name for name in stated if getattr(options, name) is not None]:
        raise FieldError(f"--verify measures what the file says: leave out --{given[0]}.")
    console, certified = Console(), load_either(options.verify, options.custom)
    if options.file:
        network = node_of(options, options.custom)
        if fingerprint(network) != fingerprint(certified.node):
            text = f"{options.verify} is about another network than {options.file}."
            console.print(text, style="red", markup=False)
            return 1
    with silenced():
        for name in certified.data.get("backends", ()):  # a comparison needs none of them here
            why_missing(name)  # which the report says
    with console.status("measuring again"):
        found = verify(certified)
    console.print(found)
    return 0 if found else 1


def run_import(options: Any) -> int:
    from blocks._foreign import match_weights
    from blocks._param_files import save_params

    pairs = [text.rpartition("=") for text in options.rename]
    if not all(name for name, _, _ in pairs):
        raise FieldError(f"--rename must be NAME=PATH, got {options.rename!r}.")
    node = node_of(options)
    found = match_weights(
        node,
        options.weights,
        framework=options.framework,
        rename={name: path for name, _, path in pairs},
        flattened=options.flattened,
    )
    Console().print(found)
    if found and options.output:
        save_params(found.params(), options.output, network=node)
    return 0 if found else 1


def node_of(options: Any, custom: Sequence[str] = ()) -> Node:
    """The network that the options name, inferred at their input, or as its file has it."""
    found = load(options.file, custom)
    if options.input is None:
        if isinstance(found, Node):
            return found
        raise FieldError(f"{options.file} does not say at which input: write --input SIZES.")
    block = found.block if isinstance(found, Node) else found
    return infer(block, sizes(options.input), layout=options.layout, dtype=options.dtype)


def sizes(text: str) -> Any:
    """The shape that a text such as "8,8,1" means, ? for any length; "8,8,1;5" of two inputs."""
    if ";" in text:
        return tuple(map(sizes, text.split(";")))
    try:
        return tuple(None if part == "?" else int(part) for part in text.split(",") if part)
    except ValueError:
        raise FieldError(f"--input must be sizes such as 8,8,1, got {text!r}.") from None


def load(reference: str, custom: Sequence[str] = ()) -> Block | Node:
    """The network in a JSON file, or that `module.py:name` names: itself, or what it returns."""
    if reference.endswith(".json"):
        if not Path(reference).is_file():
            raise FieldError(f"there is no file {reference!r}.")
        return load_file(reference, custom)
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not file or path.suffix != ".py":
        raise FieldError(f"FILE must be net.json or module.py:name, got {reference!r}.")
    if not path.is_file():
        raise FieldError(f"there is no file {file!r}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FieldError(f"{file!r} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # as python itself does for a script
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise FieldError(f"{file} has no {name!r}.{did_you_mean(name, vars(module))}")
    found = getattr(module, name)
    found = found() if callable(found) and not isinstance(found, type) else found
    if not isinstance(found, (Block, Node)):
        raise FieldError(f"{reference} is no block, but {found!r}.")
    return found
