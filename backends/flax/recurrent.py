"""Recurrent blocks."""

from __future__ import annotations

from typing import Any

from backends._expression import Name, call, optional
from backends.flax._common import layer, rule
from blocks._spec import Node, half
from blocks.recurrent import GRU, LSTM, SimpleRNN


def params(bias: str) -> dict[str, Any]:
    """Where a cell keeps its parameters; `bias` is the one of its two layers that has a bias."""
    cell = {
        "kernel": "dense_i.kernel",
        "recurrent_kernel": "dense_h.kernel",
        "bias": f"{bias}.bias",
    }

    def inside(attribute: str, branch: int) -> Any:
        def found(node: Node) -> str:
            holder = f"branches.{branch}." if node.form.bidirectional else ""
            return f"{holder}cell.{attribute}"

        return found

    forward = {name: inside(attribute, 0) for name, attribute in cell.items()}
    backward = {f"backward_{name}": inside(attribute, 1) for name, attribute in cell.items()}
    return forward | backward


@rule(SimpleRNN, **params(bias="dense_i"))
def simple_rnn(node: Node) -> Any:
    return recurrent(
        node,
        "nnx.SimpleCell",
        activation_fn=optional(Name(f"nnx.{node.form.activation}"), Name("nnx.tanh")),
        dtype=optional(Name(f"jnp.{node.dtype}"), Name("jnp.float32")),
    )


@rule(LSTM, **params(bias="dense_h"))
def lstm(node: Node) -> Any:
    return recurrent(node, "nnx.OptimizedLSTMCell")


@rule(GRU, **params(bias="dense_i"))
def gru(node: Node) -> Any:
    return recurrent(node, "nnx.GRUCell")


def recurrent(node: Node, function: str, **options: Any) -> Any:
    block = node.form
    if half(node.param_dtype):  # an orthogonal matrix takes a QR decomposition of 32 bits
        options["recurrent_kernel_init"] = call("nnx.initializers.lecun_normal")
    cell = layer(node, function, node.in_spec.shape[-1], block.features, **options)
    if not block.use_bias:
        cell = call("without_bias", cell)
    last = {"return_sequences": optional(block.return_sequences, True)}
    forward = call("RNN", cell, **last)
    if not block.bidirectional:
        return forward
    return call("Parallel", [forward, call("RNN", cell, **last, reverse=True)], merge="concat")
