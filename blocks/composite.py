"""Composites: abbreviations that expand to other blocks and need no backend code."""

from __future__ import annotations

from blocks import _fields as fields
from blocks import _shape
from blocks._block import Block, Composite, block
from blocks._errors import FieldError
from blocks.activation import ReLU, Sigmoid
from blocks.attention import MultiHeadAttention
from blocks.combine import Parallel, Repeat, Residual, Sequential, child
from blocks.conv import Conv
from blocks.linear import Dense
from blocks.norm import BatchNorm, LayerNorm
from blocks.pool import AdaptiveAvgPool, MaxPool
from blocks.regularisation import Dropout
from blocks.value import Select


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
class SqueezeExcite(Composite):
    """Each channel is scaled by a number that is computed from the means of all channels.

        y = x * sigmoid(conv(activation(conv(mean(x)))))

    with the mean over all places, and 1x1 kernels. (Hu et al. 2018.)

    Shape: (height, width, features) or (features, height, width) by the layout; unchanged.
    Parameters: body/1/kernel, body/1/bias, body/3/kernel, body/3/bias.
    Fields:
        features: number of channels.
        ratio: how many times fewer there are between the convolutions.
        activation: the block between them.
    Differs: no framework has such a layer.

    >>> import blocks as bl
    >>> bl.infer(bl.SqueezeExcite(32, ratio=8), (6, 7, 32)).out_spec.shape
    (6, 7, 32)
    """

    features: int = fields.integer()
    ratio: int = fields.integer(16)
    activation: Block = child(ReLU())

    def check(self) -> None:
        if self.features < self.ratio:
            raise FieldError(
                f"SqueezeExcite.ratio={self.ratio} leaves nothing of features={self.features}."
            )

    def expand(self) -> Block:
        squeeze = Conv(self.features // self.ratio, (1, 1)), self.activation
        excite = Conv(self.features, (1, 1)), Sigmoid()
        body = Sequential(AdaptiveAvgPool((1, 1)), *squeeze, *excite)
        return Residual(body, merge="multiply")


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


@block
class TransformerLayer(Composite):
    """What the layers of encoder and decoder share: how a part is put around its input."""

    features: int = fields.integer()
    num_heads: int = fields.integer()
    hidden: int = fields.integer()
    activation: Block = child(ReLU())
    norm: Block = child(LayerNorm())
    norm_first: bool = fields.flag(False)
    rate: float = fields.real(0.0, low=0, high=1, open_high=True)

    def check(self) -> None:
        if self.features % self.num_heads:
            raise FieldError(
                f"{type(self).__name__}.num_heads={self.num_heads} does not divide "
                f"features={self.features}."
            )

    def dropout(self) -> Block | None:
        return Dropout(self.rate) if self.rate else None

    def around(self, part: Block) -> tuple[Block, ...]:
        """A part with dropout and a way around it, and the norm before or behind."""
        if self.norm_first:
            return (Residual(chain(self.norm, part, self.dropout())),)
        return Residual(chain(part, self.dropout())), self.norm

    def feed_forward(self) -> tuple[Block, ...]:
        """Two Dense blocks, which see each position alone."""
        return self.around(MLP(self.features, (self.hidden,), self.activation, self.rate))


@block
class TransformerEncoderLayer(TransformerLayer):
    """Each position looks at all others, then passes through two Dense blocks.

        z = norm(x + attention(x)), y = norm(z + mlp(z)); with norm_first
        z = x + attention(norm(x)), y = z + mlp(norm(z))

    where mlp(x) = dense(activation(dense(x))). (Vaswani et al. 2017; norm_first: Xiong et al. 2020,
    who put one more norm behind the last layer.)

    Shape: (time, features); unchanged.
    Parameters: those of its parts, named by their position in the expansion.
    Fields:
        features: of the input and the output.
        num_heads: of the MultiHeadAttention; must divide features.
        hidden: features between the two Dense blocks.
        activation: the block between them.
        norm: the block that normalises, with parameters of its own at both places.
        norm_first: whether it comes before attention and mlp, not behind their sum.
        rate: of the Dropout behind attention, activation and mlp; 0 leaves it out.
        causal: whether positions see only themselves and those before.
    Differs: torch has this layer; its dropout also drops weights of the attention, by default with
        rate 0.1, and its default for batches is (time, batch, features). Keras and Flax have none.

    >>> import blocks as bl
    >>> bl.infer(bl.TransformerEncoderLayer(8, num_heads=2, hidden=32), (5, 8)).out_spec.shape
    (5, 8)
    """

    causal: bool = fields.flag(False)

    def expand(self) -> Block:
        attention = MultiHeadAttention(self.num_heads, causal=self.causal)
        return Sequential(*self.around(attention), *self.feed_forward())


@block
class TransformerDecoderLayer(TransformerLayer):
    """Each position looks at those before it, at all of a memory, then passes two Dense blocks.

        z = norm(x + attention(x)), w = norm(z + attention(z, memory)), y = norm(w + mlp(w)); with
        norm_first z = x + attention(norm(x)), w = z + attention(norm(z), memory),
        y = w + mlp(norm(w))

    where the first attention is causal, mlp(x) = dense(activation(dense(x))), and the memory is an
    encoder's output. (Vaswani et al. 2017.) To stack layers, hand the memory on:
    `Parallel(TransformerDecoderLayer(...), Select(1), merge="tuple")`.

    Shape: (x, memory), that is ((time, features), (memory time, any features)) -> (time, features).
    Parameters: those of its parts, named by their position in the expansion.
    Fields:
        features, num_heads, hidden, activation, norm, norm_first, rate: as in
            TransformerEncoderLayer.
    Differs: torch has this layer, whose first attention is causal only if it is given the mask, and
        whose memory has the same features. Keras and Flax have none.

    >>> import blocks as bl
    >>> layer = bl.TransformerDecoderLayer(8, num_heads=2, hidden=32)
    >>> bl.infer(layer, ((5, 8), (7, 6))).out_spec.shape
    (5, 8)
    """

    def expand(self) -> Block:
        first = self.around(MultiHeadAttention(self.num_heads, causal=True))
        return Sequential(
            Parallel(Sequential(Select(0), *first), Select(1), merge="tuple"),
            *self.around_first(MultiHeadAttention(self.num_heads)),
            *self.feed_forward(),
        )

    def around_first(self, part: Block) -> tuple[Block, ...]:
        """As `around`, for a part that sees the memory too, which stays as it is."""
        if self.norm_first:
            normed = Parallel(Sequential(Select(0), self.norm), Select(1), merge="tuple")
            return (Residual(chain(normed, part, self.dropout()), Select(0)),)
        return Residual(chain(part, self.dropout()), Select(0)), self.norm
