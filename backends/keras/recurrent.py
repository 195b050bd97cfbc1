"""Recurrent blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from backends._expression import call, optional
from backends._transforms import Part, Sizes, Steps, Transform, reshaped, taken
from backends.keras._common import layer, op, pipe, rule
from blocks._errors import UnsupportedError, place
from blocks._spec import Node, half
from blocks.recurrent import GRU, LSTM, SimpleRNN


def swapped(shape: Sizes) -> Steps:
    gates = (*shape[:-1], 3, shape[-1] // 3)
    return (
        *reshaped(shape, gates),
        *taken((1, 0, 2), axis=len(shape) - 1),
        *reshaped(gates, shape),
    )


# r, z, n on the last axis <-> z, r, n, the order of a GRU in Keras
z_first = Transform("z_first", swapped)

# the same, as a matrix of one row
z_first_row = Transform(
    "z_first_row", lambda shape: (*swapped(shape), *reshaped(shape, (1, *shape)))
)


def params(**cell: Callable[[Node], tuple[Any, ...]]) -> dict[str, Any]:
    """Binds from those inside a cell: Bidirectional holds two layers."""

    def inside(bind: Callable[[Node], tuple[Any, ...]], direction: str) -> Any:
        def found(node: Node) -> tuple[Any, ...]:
            attribute, *how = bind(node)
            holder = f"{direction}_layer." if node.form.bidirectional else ""
            return (f"{holder}cell.{attribute}", *how)

        return found

    forward = {name: inside(bind, "forward") for name, bind in cell.items()}
    backward = {f"backward_{name}": inside(bind, "backward") for name, bind in cell.items()}
    return forward | backward


STOCK = params(
    kernel=lambda node: ("kernel",),
    recurrent_kernel=lambda node: ("recurrent_kernel",),
    bias=lambda node: ("bias",),
)


@rule(SimpleRNN, **STOCK)
def simple_rnn(node: Node) -> Any:
    refuse_float64_tanh(node)
    return recurrent(
        node,
        "SimpleRNN",
        activation=optional(node.form.activation, "tanh"),
        use_bias=optional(node.form.use_bias, True),
    )


def refuse_float64_tanh(node: Node) -> None:
    jax = keras.backend.backend() == "jax"
    if jax and node.dtype == "float64" and node.form.activation == "tanh":
        raise UnsupportedError(
            f"keras cannot lower {type(node.block).__name__} {place(node.path)}: under jax "
            "its tanh turns float64 into float32, which its loop does not take.\n"
            "  Use dtype='float32', or KERAS_BACKEND=tensorflow or torch."
        )


@rule(LSTM, **STOCK)
def lstm(node: Node) -> Any:
    return recurrent(node, "LSTM", use_bias=optional(node.form.use_bias, True))


# With reset_after, Keras's bias is two, so ours is the kernel of one more input that is always 1.


def gru_kernel(node: Node) -> tuple[Any, ...]:
    above = (Part(0, lambda n: slice(n - 1)),) if node.form.use_bias else ()
    return ("kernel", z_first, *above)


@rule(
    GRU,
    **params(
        kernel=gru_kernel,
        recurrent_kernel=lambda node: ("recurrent_kernel", z_first),
        bias=lambda node: ("kernel", z_first_row, Part(1, lambda n: slice(n - 1, n))),
    ),
)
def gru(node: Node) -> Any:
    main = recurrent(node, "GRU", use_bias=False, reset_after=optional(True, True))
    if not node.form.use_bias:
        return main
    ones = op("pad", pad_width=((0, 0), (0, 0), (0, 1)), constant_values=1)
    return pipe(ones, main)


def recurrent(node: Node, function: str, **options: Any) -> Any:
    block = node.form
    # an orthogonal matrix takes a QR decomposition, which has no 16 bits
    init = "glorot_uniform" if half(node.param_dtype) else "orthogonal"
    options["recurrent_initializer"] = optional(init, "orthogonal")
    options["return_sequences"] = optional(block.return_sequences, False)
    if not block.bidirectional:
        return layer(node, function, block.features, **options)
    inner = call(f"layers.{function}", block.features, **options)
    return layer(node, "Bidirectional", inner, merge_mode=optional("concat", "concat"))
