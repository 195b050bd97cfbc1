"""Recurrent blocks."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends.numpy._common import RNG, rule
from blocks._spec import Node
from blocks.recurrent import GRU, LSTM, SimpleRNN

PARAMS: dict[str, Any] = {
    prefix + name: prefix + name
    for prefix in ("", "backward_")
    for name in ("kernel", "recurrent_kernel", "bias")
}


@rule(SimpleRNN, **PARAMS)
def simple_rnn(node: Node) -> Any:
    return recurrent(node, "SimpleRNN", activation=optional(node.form.activation, "tanh"))


@rule(LSTM, **PARAMS)
def lstm(node: Node) -> Any:
    return recurrent(node, "LSTM")


@rule(GRU, **PARAMS)
def gru(node: Node) -> Any:
    return recurrent(node, "GRU")


def recurrent(node: Node, name: str, **options: Any) -> Any:
    block = node.form
    return call(
        name,
        node.in_spec.shape[-1],
        block.features,
        **options,
        return_sequences=optional(block.return_sequences, False),
        bidirectional=optional(block.bidirectional, False),
        use_bias=optional(block.use_bias, True),
        rng=RNG,
    )
