"""Recurrent blocks."""

from __future__ import annotations

from typing import Any

from backends._expression import call, optional
from backends._transforms import out_first
from backends.torch._common import rule
from blocks._spec import Node
from blocks.recurrent import GRU, LSTM, SimpleRNN

PARAMS: dict[str, Any] = {
    "kernel": ("weight_ih_l0", out_first),
    "recurrent_kernel": ("weight_hh_l0", out_first),
    "bias": "bias_ih_l0",
    "backward_kernel": ("weight_ih_l0_reverse", out_first),
    "backward_recurrent_kernel": ("weight_hh_l0_reverse", out_first),
    "backward_bias": "bias_ih_l0_reverse",
}


@rule(SimpleRNN, **PARAMS)
def simple_rnn(node: Node) -> Any:
    return recurrent(node, "RNN", nonlinearity=node.form.activation)


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
        bias=optional(block.use_bias, True),
        batch_first=True,
        bidirectional=optional(block.bidirectional, False),
        return_sequences=optional(block.return_sequences, True),
    )
