"""Composites: abbreviations that expand to other blocks and need no backend code."""

from __future__ import annotations

from blocks import _fields as fields
from blocks import _shape
from blocks._block import Block, Composite, block
from blocks._errors import FieldError
from blocks.activation import ReLU
from blocks.combine import Parallel, Repeat, Residual, Sequential, child
from blocks.conv import Conv
from blocks.linear import Dense
from blocks.norm import BatchNorm
from blocks.pool import MaxPool
from blocks.regularisation import Dropout


def chain(*parts: Block | None) -> Sequential:
    """The parts that there are, one after the other."""
    return Sequential(*(part for part in parts if part is not None))


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
    activation: Block = child(ReLU())
    rate: float = fields.real(0.0, low=0, high=1, open_high=True)
    use_bias: bool = fields.flag(True)

    def expand(self) -> Block:
        blocks: list[Block] = []
        for features in self.hidden:
            blocks += [Dense(features, use_bias=self.use_bias), self.activation]
            blocks += [Dropout(self.rate)] if self.rate else []
        return Sequential(*blocks, Dense(self.features, use_bias=self.use_bias))


@block
class ConvNormAct(Composite):
    """A convolution, then its norm, activation, pool and dropout, as far as they are wanted.

        y = dropout(pool(activation(norm(conv(x)))))

    Shape: that of the Conv, then of the pool.
    Parameters: those of its parts, named by their position in the expansion: a part that is left
        out takes no position.
    Fields:
        features, kernel_size, stride, dilation, groups: of the Conv.
        padding: of the Conv, "same" if left out.
        use_bias: whether the Conv adds a bias; None if there is no norm, which would take it away.
        norm, activation, pool: the blocks after the Conv; None leaves one out.
        rate: of the Dropout of whole channels at the end; 0 leaves it out.
    Differs: no framework has such a layer.

    >>> ConvNormAct(8, (3, 3), norm=None, pool=MaxPool((2, 2))).expand()[1:]
    (Activation(kind='relu'), MaxPool(kernel_size=(2, 2)))
    """

    features: int = fields.integer()
    kernel_size: tuple[int, ...] = fields.sizes()
    stride: tuple[int, ...] = fields.per_axis()
    padding: str | _shape.Pairs = fields.padding("same")
    dilation: tuple[int, ...] = fields.per_axis()
    groups: int = fields.integer(1)
    use_bias: bool | None = fields.flag(None, optional=True)
    norm: Block | None = child(BatchNorm(), optional=True)
    activation: Block | None = child(ReLU(), optional=True)
    pool: Block | None = child(None, optional=True)
    rate: float = fields.real(0.0, low=0, high=1, open_high=True)

    def check(self) -> None:
        self.conv()

    def conv(self) -> Conv:
        """The convolution that its fields make."""
        window = self.kernel_size, self.stride, self.padding, self.dilation
        use_bias = self.norm is None if self.use_bias is None else self.use_bias
        return Conv(self.features, *window, self.groups, use_bias)

    def expand(self) -> Block:
        dropout = Dropout(self.rate, whole_channels=True) if self.rate else None
        return chain(self.conv(), self.norm, self.activation, self.pool, dropout)


@block
class ResidualBlock(Composite):
    """Two convolutions with 3x3 kernels and a way around them.

        y = activation(x + norm(conv(activation(norm(conv(x))))))

    With `project` the way around is norm(conv(x)) with a 1x1 kernel and the same stride: for
    another size or number of features. (He et al. 2016, figure 2.)

    Shape: (height, width, in) -> (ceil(height / stride), ceil(width / stride), features), or with
        channels first. Without `project` it must be the shape of the input.
    Parameters: 0/body/0/kernel, ...: those of its parts; with `project` also 0/shortcut/0/kernel.
    Fields:
        features: number of channels, in the middle and of the output.
        stride: of the first convolution.
        project: whether the way around has a convolution.
        use_bias: whether the convolutions add a bias, which the default norm would take away.
        norm, activation: the blocks after the convolutions.
    Differs: no framework has such a layer; torchvision calls it BasicBlock.

    >>> import blocks as bl
    >>> bl.infer(bl.ResidualBlock(8, stride=2, project=True), (6, 7, 4)).out_spec.shape
    (3, 4, 8)
    """

    features: int = fields.integer()
    stride: int = fields.integer(1)
    project: bool = fields.flag(False)
    use_bias: bool = fields.flag(False)
    norm: Block = child(BatchNorm())
    activation: Block = child(ReLU())

    def expand(self) -> Block:
        body = (
            *conv_norm(self, self.features, 3, self.stride),
            self.activation,
            *conv_norm(self, self.features, 3),
        )
        return around(self, body)


@block
class Bottleneck(Composite):
    """Convolutions with kernels 1x1, 3x3 and 1x1, few channels in the middle, and a way around.

        y = activation(x + norm(conv1(activation(norm(conv3(activation(norm(conv1(x)))))))))

    With `project` the way around is norm(conv(x)) with a 1x1 kernel and the same stride: for
    another size or number of features. (He et al. 2016, figure 5, the stride moved to the 3x3
    kernel; with groups: Xie et al. 2017.)

    Shape: (height, width, in) -> (ceil(height / stride), ceil(width / stride), features), or with
        channels first. Without `project` it must be the shape of the input.
    Parameters: 0/body/0/kernel, ...: those of its parts; with `project` also 0/shortcut/0/kernel.
    Fields:
        features: number of channels of the output.
        stride, groups: of the convolution in the middle.
        project: whether the way around has a convolution.
        expansion: how many times more channels the output has than the middle.
        use_bias: whether the convolutions add a bias, which the default norm would take away.
        norm, activation: the blocks after the convolutions.
    Differs: no framework has such a layer; torchvision's Bottleneck is given the channels of the
        middle.

    >>> import blocks as bl
    >>> bl.infer(bl.Bottleneck(8, stride=2, project=True), (6, 7, 4)).out_spec.shape
    (3, 4, 8)
    """

    features: int = fields.integer()
    stride: int = fields.integer(1)
    project: bool = fields.flag(False)
    expansion: int = fields.integer(4)
    groups: int = fields.integer(1)
    use_bias: bool = fields.flag(False)
    norm: Block = child(BatchNorm())
    activation: Block = child(ReLU())

    def check(self) -> None:
        if self.features % (self.expansion * self.groups):
            raise FieldError(
                f"Bottleneck.features={self.features} cannot be divided by expansion="
                f"{self.expansion}"
                + (f" and then by groups={self.groups}." if self.groups > 1 else ".")
            )

    def expand(self) -> Block:
        middle = self.features // self.expansion
        body = (
            *conv_norm(self, middle, 1),
            self.activation,
            *conv_norm(self, middle, 3, self.stride, self.groups),
            self.activation,
            *conv_norm(self, self.features, 1),
        )
        return around(self, body)


def conv_norm(
    made: ResidualBlock | Bottleneck, features: int, size: int, stride: int = 1, groups: int = 1
) -> tuple[Block, Block]:
    """A square convolution with as much padding at both ends, and its norm."""
    pads = ((size // 2, size // 2),) * 2
    window = (size, size)
    conv = Conv(features, window, (stride, stride), pads, groups=groups, use_bias=made.use_bias)
    return conv, made.norm


def around(made: ResidualBlock | Bottleneck, body: tuple[Block, ...]) -> Block:
    """The body with a way around it, and the last activation."""
    shortcut = Sequential(*conv_norm(made, made.features, 1, made.stride)) if made.project else None
    return Sequential(Residual(Sequential(*body), shortcut), made.activation)


@block
class Inception(Composite):
    """Kernels of three sizes and a pool look at the same input; their channels are joined.

        y = concat(conv1(x), conv3(conv1(x)), conv5(conv1(x)), conv1(pool(x)))

    with the activation after every convolution, all of which keep the size. (Szegedy et al. 2015,
    figure 2b.)

    Shape: (height, width, in) -> (height, width, features + threes[1] + fives[1] + pooled), or with
        channels first.
    Parameters: 0/0/kernel, 1/0/0/kernel, 1/1/0/kernel, ...: those of its branches.
    Fields:
        features: channels of the 1x1 kernel alone.
        threes, fives: channels of a 1x1 kernel and of the 3x3 or 5x5 kernel after it.
        pooled: channels of the 1x1 kernel after a 3x3 MaxPool.
        norm: the block after each convolution, which then has no bias; None for none.
        activation: the block after that.
    Differs: no framework has such a layer.

    >>> import blocks as bl
    >>> bl.infer(bl.Inception(64, (96, 128), (16, 32), 32), (28, 28, 192)).out_spec.shape
    (28, 28, 256)
    """

    features: int = fields.integer()
    threes: tuple[int, ...] = fields.integers()
    fives: tuple[int, ...] = fields.integers()
    pooled: int = fields.integer()
    norm: Block | None = child(None, optional=True)
    activation: Block = child(ReLU())

    def check(self) -> None:
        for name in ("threes", "fives"):
            if len(getattr(self, name)) != 2:
                pair = getattr(self, name)
                raise FieldError(f"Inception.{name} must be two positive ints, got {pair}.")

    def expand(self) -> Block:
        return Parallel(
            self.conv(self.features, 1),
            Sequential(self.conv(self.threes[0], 1), self.conv(self.threes[1], 3)),
            Sequential(self.conv(self.fives[0], 1), self.conv(self.fives[1], 5)),
            Sequential(MaxPool((3, 3), (1, 1), "same"), self.conv(self.pooled, 1)),
        )

    def conv(self, features: int, size: int) -> Block:
        """A convolution with a square kernel, its norm and activation."""
        return ConvNormAct(features, (size, size), norm=self.norm, activation=self.activation)


@block
class DenseBlock(Composite):
    """Convolutions each of which sees the input and all that those before it made.

        x_{i+1} = concat(x_i, conv(activation(norm(x_i)))), y = x_times

    with 3x3 kernels that keep the size. (Huang et al. 2017, equation 2.)

    Shape: (height, width, in) -> (height, width, in + times * growth), or with channels first.
    Parameters: 0/body/0/scale, ..., 0/body/2/kernel, 1/body/0/scale, ...
    Fields:
        growth: channels that each convolution adds.
        times: number of convolutions.
        use_bias: whether they add a bias.
        norm, activation: the blocks before each.
    Differs: no framework has such a layer.

    >>> import blocks as bl
    >>> bl.infer(bl.DenseBlock(growth=10, times=2), (8, 8, 3)).out_spec.shape
    (8, 8, 23)
    """

    growth: int = fields.integer()
    times: int = fields.integer()
    use_bias: bool = fields.flag(False)
    norm: Block = child(BatchNorm())
    activation: Block = child(ReLU())

    def expand(self) -> Block:
        conv = Conv(self.growth, (3, 3), padding="same", use_bias=self.use_bias)
        layer = Sequential(self.norm, self.activation, conv)
        return Repeat(Residual(layer, merge="concat"), self.times)
