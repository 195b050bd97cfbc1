"""Builders: networks from a dictionary of attributes, all of them checked before it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING
from typing import Any, ClassVar, Self

from blocks import _fields as fields
from blocks._block import Block
from blocks._errors import BlockError, FieldError, did_you_mean
from blocks._infer import infer
from blocks._validate import Validation, validate
from blocks.activation import ReLU
from blocks.combine import Sequential, a_block
from blocks.conv import Conv, ConvTranspose
from blocks.linear import Dense
from blocks.norm import BatchNorm
from blocks.pool import MaxPool
from blocks.regularisation import Dropout
from blocks.shape import Flatten

AUTO = "auto"


class Builder:
    """A dictionary of attributes that becomes a network: what is wanted, apart from how it is made.

    Each attribute is checked and normalised by a function of those before it that are right, under
    its name in `keys`. A subclass that wants more freedom overrides `create_blocks`.
    """

    keys: ClassVar[dict[str, Any]] = {}
    makes: ClassVar[dict[str, type[Block]]] = {}  # which blocks the sizes in an attribute make

    def __init__(self, attributes: Mapping[str, Any] | None = None):
        if not isinstance(attributes, Mapping | None):
            raise fields.refuse(type(self).__name__, "given a dictionary", attributes)
        self.attributes = dict(attributes or {})
        self.known: tuple[dict[str, Any], dict[str, FieldError]] | None = None

    def set(self, key: str, value: Any) -> Self:
        """Set one attribute; returns the builder, so that calls can be chained."""
        if key not in list(self.keys):  # one that cannot be hashed is unknown too
            raise self.unknown(key)
        self.attributes[key] = value
        self.known = None
        return self

    def unknown(self, key: Any) -> FieldError:
        known = ", ".join(self.keys)
        hint = did_you_mean(str(key), self.keys)
        return FieldError(f"{type(self).__name__} has no attribute {key!r}.{hint} It has {known}.")

    def __getitem__(self, key: str) -> Any:
        """The checked value of an attribute, or its default."""
        values, errors = self.known or self.checked()
        if key not in list(self.keys):
            raise self.unknown(key)
        if key not in values:
            raise errors[key]
        return values[key]

    def checked(self) -> tuple[dict[str, Any], dict[str, FieldError]]:
        """Normalised values, and an error for each attribute that is wrong, missing or unknown.

        What is wrong has its default among the values, so that the rest can be checked too.
        """
        values: dict[str, Any] = {}
        errors = {key: self.unknown(key) for key in self.attributes if key not in self.keys}
        for key, field in self.keys.items():
            convert, label = field.metadata["convert"], f"{type(self).__name__}.{key}"
            stated = self.attributes.get(key, field.default)
            if stated is MISSING:
                errors[key] = FieldError(f"{label} is missing.")
                continue
            try:
                values[key] = convert(values, label, stated)
            except FieldError as error:
                errors[key] = error
        for key, field in self.keys.items():
            if key not in values and field.default is not MISSING:
                values[key] = field.metadata["convert"](values, key, field.default)
        return values, errors

    def holding(self, known: tuple[dict[str, Any], dict[str, FieldError]]) -> Self:
        """A copy that does not check again, however often a value is asked for."""
        made = copy(self)
        made.known = known
        return made

    def create_blocks(self) -> list[Block]:
        """The blocks of the network in their order."""
        raise self.unfinished("create_blocks")

    def input_shape(self, layout: str = "channels_last") -> tuple[int, ...]:
        """The shape that the network takes, for `infer`."""
        raise self.unfinished("input_shape")

    def unfinished(self, method: str) -> FieldError:
        return FieldError(
            f"{type(self).__name__} does not say what it makes: it has no {method}.\n"
            "  Use MLPBuilder or ConvBuilder, or write one with create_blocks and input_shape."
        )

    def validate(self) -> Validation:
        """Every wrong attribute, and every error of the network that they make; builds nothing."""
        values, wrong = self.checked()
        made = self.holding((values, wrong))
        errors: list[BlockError] = list(wrong.values())
        if any(field.default is MISSING and key not in values for key, field in self.keys.items()):
            return Validation(None, tuple(errors))
        try:
            found = validate(Sequential(*made.create_blocks()), made.input_shape())
        except BlockError as error:
            return Validation(None, (*errors, error))
        return Validation(found.node, (*errors, *map(self.blamed, found.errors)))

    def blamed(self, error: BlockError) -> BlockError:
        """The error of a block, with the name of the attribute that made it."""
        made = type(getattr(error, "block", None))
        for key in (key for key, kind in self.makes.items() if kind is made):
            error.args = (f"{error}\n  It is made by {type(self).__name__}.{key}.",)
        return error

    def build(self) -> Sequential:
        """The network.

        Raises:
            FieldError: with all that is wrong.
        """
        found = self.validate()
        if not found:
            raise FieldError(f"{type(self).__name__} cannot build: {found}")
        return Sequential(*self.holding(self.checked()).create_blocks())


# ---- attributes: functions of the values before, a label and what was stated ------------------


def number_list(start: str = "") -> Callable[..., Any]:
    """Two or more positive ints; `start` may stand for the first."""

    def convert(values: Any, label: str, value: Any) -> tuple[Any, ...]:
        listed = list(value) if fields.is_sequence(value) else []
        head = listed[:1] if start and listed[:1] == [start] else []
        numbers = fields.int_tuple(listed[len(head) :])
        if len(listed) < 2 or not numbers or min(numbers) < 1:
            first = f" ({start!r} may be the first)" if start else ""
            raise fields.refuse(label, f"a list of two or more positive ints{first}", value)
        return (*head, *numbers)

    return convert


def optional(convert: Callable[..., Any]) -> Callable[..., Any]:
    """The same attribute, or None."""
    return lambda values, label, value: None if value is None else convert(values, label, value)


def image_size(values: Any, label: str, value: Any) -> tuple[int, ...]:
    numbers = fields.int_tuple(value)
    if not numbers or len(numbers) > 3 or min(numbers) < 1:
        raise fields.refuse(label, "a tuple of one to three positive ints", value)
    return numbers


def each_axis(low: int) -> Callable[..., Any]:
    """An int for each axis of the image; a lone int serves all axes."""

    def convert(values: Any, label: str, value: Any) -> tuple[int, ...]:
        number, size = fields.as_index(value), values.get("input_size")
        numbers = (number,) * len(size or "?") if number is not None else fields.int_tuple(value)
        if not numbers or min(numbers) < low or (size and len(numbers) != len(size)):
            many = f"{len(size)} of them as input_size={size} has" if size else "one for each axis"
            raise fields.refuse(label, f"an int of at least {low}, or {many}", value)
        return numbers

    return convert


def ends(values: Any, label: str, value: Any) -> Any:
    """Padding: a word, or cells at both ends of all axes, of each, or as pairs."""
    rank = len(values.get("input_size", ())) or len(value if fields.is_sequence(value) else ())
    if isinstance(value, str) and value in ("same", "valid"):
        return value
    if pairs := fields.pair_tuple(value, rank):
        return pairs
    try:
        return tuple((cells, cells) for cells in each_axis(0)(values, label, value))
    except FieldError:
        rule = "'same', 'valid', or an int or a pair for each axis"
        raise fields.refuse(label, rule, value) from None


def rates(*lists: str) -> Callable[..., Any]:
    """A rate for all layers, or one for each of those that the lists make."""
    number = fields.real(0.0, low=0, high=1, open_high=True).metadata["convert"]

    def convert(values: Any, label: str, value: Any) -> tuple[float, ...]:
        layers = sum(len(values[key]) - 1 for key in lists if values.get(key))
        if not fields.is_sequence(value):
            return (number(None, label, value),) * layers
        if len(value) != layers and all(key in values for key in lists):
            raise fields.refuse(label, f"a number, or one for each of {layers} layers", value)
        stated = [number(None, f"{label}[{i}]", rate) for i, rate in enumerate(value)]
        return (
            *stated,
            *[0.0] * (layers - len(stated)),
        )  # where a wrong list left their number open

    return convert


def output_size(
    input_size: Any, kernel_size: Any, padding: Any = 0, stride: Any = 1, dilation: Any = 1
) -> tuple[int, ...]:
    """The sizes that a convolution or a pool makes of an image.

        floor((size + before + after - dilation * (kernel_size - 1) - 1) / stride) + 1

    Args:
        input_size: a tuple, such as (height, width).
        kernel_size: an int, or one for each axis; so are stride and dilation.
        padding: cells at both ends as an int or one for each axis, or as in `Conv`.

    Raises:
        ShapeError: if the kernel does not fit.

    >>> output_size((32, 64), (3, 4), padding=(1, 1), stride=(1, 2))
    (32, 32)
    """
    steps = {"stride": stride, "dilation": dilation}
    return sizes_after(Conv, "output_size", input_size, kernel_size, padding, steps)


def transposed_size(
    input_size: Any,
    kernel_size: Any,
    padding: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    output_padding: Any = 0,
) -> tuple[int, ...]:
    """The sizes that a transposed convolution makes of an image; arguments as in `output_size`.

        (size - 1) * stride - before - after + dilation * (kernel_size - 1) + 1 + output_padding

    With output_padding = (size + before + after - dilation * (kernel_size - 1) - 1) mod stride, of
    the sizes that went into `output_size`, these come back.

    >>> transposed_size(output_size((28, 9), 3, 1, 2), 3, 1, 2, output_padding=(1, 0))
    (28, 9)
    """
    steps = {"stride": stride, "dilation": dilation, "output_padding": output_padding}
    return sizes_after(ConvTranspose, "transposed_size", input_size, kernel_size, padding, steps)


def sizes_after(
    kind: Any, label: str, size: Any, kernel_size: Any, padding: Any, steps: dict[str, Any]
) -> tuple[int, ...]:
    """The spatial sizes after a layer with these steps."""
    values = {"input_size": image_size({}, f"{label}.input_size", size)}
    kernel = each_axis(1)(values, f"{label}.kernel_size", kernel_size)
    block = kind(1, kernel, padding=ends(values, f"{label}.padding", padding), **steps)
    sizes: tuple[int, ...] = infer(block, (*values["input_size"], 1)).out_spec.spatial
    return sizes


COMMON = {
    "activation": fields.converted(optional(a_block), ReLU()),
    "output_activation": fields.converted(optional(a_block), None),
    "is_batch_norm": fields.flag(False),
    "bias": fields.flag(False),
}


def present(*blocks: Block | None) -> list[Block]:
    return [block for block in blocks if block is not None]


def dropout(rate: float, **options: Any) -> Block | None:
    return Dropout(rate, **options) if rate else None


class MLPBuilder(Builder):
    """A multilayer perceptron: Dense, [BatchNorm], [activation], [Dropout] for each layer.

    Attributes:
        in_features_list: the features of the input and of every layer, such as [8, 16, 16, 1].
        activation: the block after each layer but the last, ReLU() if left out; None for none.
        output_activation: the block after the last layer; None, as if left out, for none.
        is_batch_norm: whether the layers but the last have a BatchNorm; not if left out.
        bias: whether they have a bias; not if left out.
        drop_out: the rate of a Dropout after every layer, the last too, or a list of a rate for
            each; 0, as if left out, for none.

    >>> builder = MLPBuilder({"in_features_list": [8, 16, 1]}).set("bias", True)
    >>> builder.build()
    Sequential(Dense(features=16), Activation(kind='relu'), Dense(features=1))
    """

    makes: ClassVar[dict[str, type[Block]]] = {"in_features_list": Dense}
    keys: ClassVar[dict[str, Any]] = {
        "in_features_list": fields.converted(number_list()),
        **COMMON,
        "drop_out": fields.converted(rates("in_features_list"), 0.0),
    }

    def input_shape(self, layout: str = "channels_last") -> tuple[int, ...]:
        return (self["in_features_list"][0],)

    def create_blocks(self) -> list[Block]:
        return dense_blocks(self, None, norm=self["is_batch_norm"])


def dense_blocks(builder: Builder, first: int | None, norm: bool) -> list[Block]:
    """The layers of `in_features_list`; `first` is stated as the features of the input."""
    sizes = builder["in_features_list"][1:]
    blocks = []
    for i, (features, rate) in enumerate(
        zip(sizes, builder["drop_out"][-len(sizes) :], strict=True)
    ):
        last = i == len(sizes) - 1
        blocks += present(
            Dense(features, use_bias=builder["bias"], in_features=None if i else first),
            BatchNorm() if norm and not last else None,
            builder["output_activation" if last else "activation"],
            dropout(rate),
        )
    return blocks


class ConvBuilder(Builder):
    """Convolutions over one, two or three axes, then perhaps a multilayer perceptron.

    Each convolution is Conv, [BatchNorm], [activation], [MaxPool], [Dropout of whole channels].

    Attributes:
        input_size: of the image, such as (28, 28); its length is the number of axes.
        in_channels_list: the channels of the image and of every convolution, such as [1, 8, 16].
        kernel_size: an int, or one for each axis.
        stride: likewise, 1 if left out.
        padding: "valid", as if left out, "same", cells at both ends as an int or one for each
            axis, or a (before, after) pair for each axis.
        max_pool_kernel: the window of MaxPool, an int or one for each axis; None for none.
        max_pool_stride: its step, likewise; to be stated wherever there is a pool.
        in_features_list: the features of the flattened image and of every Dense after it, such as
            ["auto", 64, 10]; a number in the place of "auto" is checked. None for no Dense.
        activation: the block after each layer but the last Dense, ReLU() if left out.
        output_activation: the block after the last Dense, none if left out; without a Dense that
            after the last convolution, `activation` if left out.
        is_batch_norm: whether convolutions have a BatchNorm; not if left out.
        bias: whether all layers have a bias; not if left out.
        drop_out: a rate for all layers, the last too, or a list of a rate for each; 0 if left out.

    >>> builder = ConvBuilder({"input_size": (28, 28), "in_channels_list": [1, 8]})
    >>> builder.set("kernel_size", 3).set("in_features_list", ["auto", 10]).build()[2:]
    (Flatten(), Dense(features=10, use_bias=False))
    """

    makes: ClassVar[dict[str, type[Block]]] = {
        "kernel_size": Conv,
        "max_pool_kernel": MaxPool,
        "in_features_list": Dense,
    }
    keys: ClassVar[dict[str, Any]] = {
        "input_size": fields.converted(image_size),
        "in_channels_list": fields.converted(number_list()),
        "kernel_size": fields.converted(each_axis(1)),
        "stride": fields.converted(each_axis(1), 1),
        "padding": fields.converted(ends, "valid"),
        "max_pool_kernel": fields.converted(optional(each_axis(1)), None),
        "max_pool_stride": fields.converted(optional(each_axis(1)), None),
        "in_features_list": fields.converted(optional(number_list(AUTO)), None),
        **COMMON,
        "drop_out": fields.converted(rates("in_channels_list", "in_features_list"), 0.0),
    }

    def checked(self) -> tuple[dict[str, Any], dict[str, FieldError]]:
        values, errors = super().checked()
        pool, step = values["max_pool_kernel"], values["max_pool_stride"]
        if "max_pool_kernel" not in errors and "max_pool_stride" not in errors:
            label = f"{type(self).__name__}.max_pool_stride"
            if pool and not step:
                errors["max_pool_stride"] = FieldError(
                    f"{label} is missing: state it, {pool} for windows side by side, 1 for all."
                )
            elif step and not pool:
                errors["max_pool_stride"] = FieldError(
                    f"{label}={step} has no meaning without max_pool_kernel."
                )
        return values, errors

    def input_shape(self, layout: str = "channels_last") -> tuple[int, ...]:
        size, channels = self["input_size"], self["in_channels_list"][0]
        return (*size, channels) if layout == "channels_last" else (channels, *size)

    def create_blocks(self) -> list[Block]:
        channels = self["in_channels_list"][1:]
        blocks = []
        for i, (features, rate) in enumerate(zip(channels, self["drop_out"], strict=False)):
            blocks += present(
                self.conv(features),
                BatchNorm() if self["is_batch_norm"] else None,
                self.activation_after(i),
                self.pool(),
                dropout(rate, whole_channels=True),
            )
        if not self["in_features_list"]:
            return blocks
        flat = self["in_features_list"][0]
        return [*blocks, Flatten(), *dense_blocks(self, None if flat == AUTO else flat, norm=False)]

    def conv(self, features: int) -> Block:
        window = self["kernel_size"], self["stride"], self["padding"]
        return Conv(features, *window, use_bias=self["bias"])

    def pool(self) -> Block | None:
        window = self["max_pool_kernel"]
        return MaxPool(window, self["max_pool_stride"]) if window else None

    def activation_after(self, layer: int) -> Block | None:
        last = layer == len(self["in_channels_list"]) - 2 and not self["in_features_list"]
        stated = last and "output_activation" in self.attributes
        return self["output_activation" if stated else "activation"]
