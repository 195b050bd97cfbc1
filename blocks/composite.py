"""Composites: abbreviations that expand to other blocks and need no backend code."""

from __future__ import annotations

from blocks import _fields as fields
from blocks._block import Block, Composite, block
from blocks.activation import ReLU
from blocks.combine import Sequential, a_block
from blocks.linear import Dense
from blocks.regularisation import Dropout


@block
class MLP(Composite):
    """A multilayer perceptron: hidden Dense layers, each with activation and dropout, then a Dense.

    Shape: (*, in) -> (*, features).
    Parameters: those of its Dense blocks, named by their position in the expansion.
    Fields:
        features: number of outputs.
        hidden: sizes of the hidden layers.
        activation: the block after each hidden Dense.
        rate: of the Dropout after each activation; 0 leaves it out.
        use_bias: whether the Dense blocks have a bias.
    Differs: no framework has such a layer.

    >>> MLP(10, hidden=(256,)).expand()
    Sequential(Dense(features=256), Activation(kind='relu'), Dense(features=10))
    """

    features: int = fields.integer()
    hidden: tuple[int, ...] = fields.integers((256,))
    activation: Block = fields.converted(a_block, ReLU())
    rate: float = fields.real(0.0, low=0, high=1, open_high=True)
    use_bias: bool = fields.flag(True)

    def expand(self) -> Block:
        blocks: list[Block] = []
        for features in self.hidden:
            blocks += [Dense(features, use_bias=self.use_bias), self.activation]
            blocks += [Dropout(self.rate)] if self.rate else []
        return Sequential(*blocks, Dense(self.features, use_bias=self.use_bias))
