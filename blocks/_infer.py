"""`infer`: from blocks to nodes at known sizes. All shape arithmetic and shape errors are here.

Combinators are coroutines: `connect` yields a child with its input and is sent the output. `infer`
drives them with a stack of its own, so that nesting costs no Python recursion, and adds path and
origin to an error once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from blocks._block import Block, Combinator, Wiring
from blocks._errors import BlockError, FieldError, ShapeError, did_you_mean, place, shown
from blocks._extent import bounded, bounded_param, check_extent
from blocks._fields import as_index
from blocks._spec import (
    DTYPES,
    FLOAT,
    FLOATS,
    LAYOUTS,
    Kind,
    Node,
    ParamSpec,
    Spec,
    ValueSpec,
    half,
    is_float,
    join,
    leaves,
    map_value,
    shapes,
)
from blocks.combine import Shared
from blocks.custom import Custom
from blocks.initializers import Array, as_init

Run = TypeVar("Run", bound="Inference")


def infer(
    block: Block,
    input_shape: Any,
    *,
    layout: str = "channels_last",
    dtype: str = "float32",
    param_dtype: str | None = None,
) -> Node:
    """Work out every size of a network, forward from its input.

    Args:
        block: the network.
        input_shape: sizes without the batch axis; None for an axis of any length; a tuple of
            shapes for a network that takes a tuple. An input that goes straight into a block of
            integers or booleans (an Embedding, a mask) is one; else write `Spec(shape, "int32")`.
        layout: which axis spatial blocks treat as channels, "channels_last" or "channels_first".
        dtype: of values, "float32", "float64", "float16" or "bfloat16".
        param_dtype: of parameters, the same if left out. "float32" with a dtype of half the width
            is mixed precision.

    Raises:
        ShapeError: if blocks do not fit together, with the path and a repair.

    >>> import blocks as bl
    >>> bl.infer(bl.Dense(10), (20,)).out_spec.shape
    (10,)
    """
    return inferred(
        Inference, block, input_shape, layout=layout, dtype=dtype, param_dtype=param_dtype
    )[1]


def inferred(
    kind: type[Run],
    block: Block,
    input_shape: Any,
    *,
    layout: str = "channels_last",
    dtype: str = "float32",
    param_dtype: str | None = None,
) -> tuple[Run, Node]:
    """The last run of an inference, and the node that it made; arguments as in `infer`."""
    if not isinstance(block, Block):
        raise FieldError(f"infer needs a block, got {shown(block)}.")
    check_word("layout", layout, LAYOUTS)
    check_word("dtype", dtype, FLOATS)
    param_dtype = dtype if param_dtype is None else param_dtype
    check_word("param_dtype", param_dtype, sorted({dtype, "float32"}) if half(dtype) else [dtype])
    x = input_spec(input_shape, dtype, layout)
    try:
        bounded(x)
    except ShapeError as error:
        raise ShapeError(f"the input of the network {error.fact}.") from None
    check_extent(block)
    while True:
        try:
            run = kind(dtype, param_dtype, x)
            return run, run.run(block, x)
        except Wanted as found:
            x = found.applied(x)


def typed_param(name: str, spec: ParamSpec, dtype: str) -> ParamSpec:
    """The spec of a parameter in the network's dtype."""
    if not isinstance(spec, ParamSpec):
        raise ShapeError(
            f"has {spec!r} for its {name}, not a ParamSpec", fix='Write ParamSpec(shape, "zeros").'
        )
    try:
        init = as_init("it", spec.init)
    except FieldError as error:
        raise ShapeError(f"cannot draw its {name}: {error}") from None
    return bounded_param(name, replace(spec, init=init, dtype=dtype))


def code_failed(error: Exception) -> ShapeError:
    """The error of a block whose own code cannot take its input."""
    made = ShapeError(f"cannot take its input: its code raised {type(error).__name__}: {error}")
    made.__cause__ = error
    return made


class Wanted(Exception):
    """An input of the network must hold other numbers than floats."""

    def __init__(self, spec: Spec, made: Spec):
        self.spec, self.made = spec, made

    def applied(self, x: ValueSpec) -> ValueSpec:
        """The input of the network with that tensor changed."""
        return map_value(lambda spec: self.made if spec is self.spec else spec, x)


def check_word(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        words = ", ".join(map(repr, known))
        raise FieldError(
            f"{name} must be one of {words}, got {shown(value)}."
            f"{did_you_mean(value, known) if isinstance(value, str) else ''}"
        )


def check_ints(**numbers: tuple[Any, int]) -> None:
    """Refuse what is no int, or one below its least value."""
    for name, (number, low) in numbers.items():
        if as_index(number) is None or number < low:
            raise FieldError(f"{name} must be an int of at least {low}, got {number!r}.")


def input_spec(shape: Any, dtype: str, layout: str) -> ValueSpec:
    """A spec from a shape as users write it, or from a spec."""
    if isinstance(shape, Spec):
        check_word("dtype of an input", shape.dtype, DTYPES)
        own = dtype if is_float(shape) else shape.dtype
        return replace(input_spec(shape.shape, own, layout), below=shape.below)
    if not isinstance(shape, (tuple, list)):
        number = as_index(shape)
        hint = f" Write ({number},)." if number is not None else ""
        raise FieldError(f"input_shape must be a tuple of sizes, got {shown(shape)}.{hint}")
    if len(shape) > 1 and all(isinstance(s, (tuple, list, Spec)) for s in shape):
        return tuple(input_spec(s, dtype, layout) for s in shape)
    sizes = tuple(None if s is None else as_index(s) for s in shape)
    if any(s is not None and (n is None or n < 1) for s, n in zip(shape, sizes, strict=True)):
        raise FieldError(f"input_shape must hold positive ints or None, got {shown(tuple(shape))}.")
    return Spec(sizes, dtype, layout)


@dataclass
class Frame:
    """A block on its way to be a node; the wiring is a combinator's running `connect`."""

    name: str
    path: str
    home: str
    block: Block
    form: Any
    x: ValueSpec
    shared: str
    wiring: Wiring | None
    children: list[Node] = field(default_factory=list)

    def node(self, out: ValueSpec, **facts: Any) -> Node:
        names = self.name, self.path, self.home
        blocks = self.block, self.form
        children = tuple(self.children)
        facts |= {"children": children, "shared": self.shared}
        return Node(*names, *blocks, self.x, out, **facts)


class Inference:
    """One run of `infer`."""

    def __init__(self, dtype: str, param_dtype: str, x: ValueSpec):
        self.dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        self.inputs = leaves(x)
        self.shared: dict[str, tuple[str, Block]] = {}  # name -> path and block of the first use
        self.specs: dict[str, ParamSpec] = {}  # canonical path -> spec
        self.origins: dict[int, Node] = {}  # id of a spec -> the node that made it

    def run(self, block: Block, x: ValueSpec) -> Node:
        stack = [self.enter(block, "", "", "", x)]
        sent: ValueSpec = None
        while True:
            frame = stack[-1]
            try:
                if frame.wiring is None:
                    node = self.leaf(frame)
                else:
                    name, child, spec = frame.wiring.send(sent)
                    path, home = join(frame.path, name), join(frame.home, name)
                    stack.append(self.enter(child, name, path, home, spec))
                    sent = None
                    continue
            except StopIteration as stop:
                resolved = frame.form.resolve(stop.value)
                node = frame.node(stop.value, resolved=resolved, **self.dtypes)
            except ShapeError as error:
                node = self.failed(self.explain(error, stack[-1]), stack[-1])
            except (BlockError, Wanted):
                raise
            except Exception as error:
                if not isinstance(frame.form, Custom):
                    raise
                node = self.failed(self.explain(code_failed(error), stack[-1]), stack[-1])
            self.note_origin(node)
            stack.pop()
            if not stack:
                return node
            stack[-1].children.append(node)
            sent = node.out_spec

    def failed(self, error: ShapeError, frame: Frame) -> Node:
        """What to go on with after an error; `infer` stops at the first."""
        raise error from error.__cause__

    def enter(self, block: Block, name: str, path: str, home: str, x: ValueSpec) -> Frame:
        form, shared = block, ""
        while (inner := form.expand()) is not None:
            if isinstance(form, Shared):
                home, first = self.shared.setdefault(form.key, (path, inner))
                if first != inner:
                    raise FieldError(
                        f"Shared({form.key!r}) holds {shown(inner)} {place(path)}, "
                        f"but {shown(first)} {place(home)}. Give one of them another name."
                    )
                shared = form.key
            form = inner
        wiring = form.connect(x) if isinstance(form, Combinator) else None
        return Frame(name, path, home, block, form, x, shared, wiring)

    def leaf(self, frame: Frame) -> Node:
        leaf = frame.form
        if isinstance(frame.x, tuple) and not leaf.takes_tuple:
            raise ShapeError(f"takes one tensor, got a tuple of {len(frame.x)}")
        out = map_value(self.typed, bounded(leaf.out_spec(frame.x)))
        map_value(self.check_kind, leaf.kinds(frame.x), frame.x)
        params = self.params(leaf, frame.x)
        for name, spec in params.items():
            if isinstance(spec.init, Array) and spec.init.shape != spec.shape:
                raise ShapeError(
                    f"has an array of shape {spec.init.shape} for its {name} of shape {spec.shape}",
                    fix="Canonical kernels are (in, out) and (*window, in, out).",
                )
        self.tie(frame, params)
        return frame.node(out, params=params, resolved=leaf.resolve(frame.x), **self.dtypes)

    def params(self, leaf: Any, x: ValueSpec) -> dict[str, ParamSpec]:
        """The parameters of a leaf in the network's dtype."""
        dtype = self.dtypes["param_dtype"]
        return {k: typed_param(k, p, dtype) for k, p in leaf.param_specs(x).items()}

    def typed(self, spec: Spec) -> Spec:
        """The same spec; one that says only that it holds floats gets the network's dtype."""
        if not isinstance(spec, Spec):
            raise ShapeError(
                f"has an out_spec that returns {spec!r}, not a Spec",
                fix="Return x itself, x.with_shape(...), or a tuple of these.",
            )
        return replace(spec, dtype=self.dtypes["dtype"]) if spec.dtype == FLOAT else spec

    def check_kind(self, kind: Kind, spec: Spec) -> None:
        """Refuse a tensor of other numbers than the block takes; an input may still become one."""
        if kind.takes(spec):
            return
        made = kind.made(spec)
        if made != spec and any(spec is one for one in self.inputs):
            raise Wanted(spec, made)
        raise ShapeError(
            f"takes {kind}, got {spec.dtype} of {shapes(spec)}",
            fix=""
            if kind.name == "float"
            else f"Write Spec({spec.shape}, {made.dtype!r}) for the network's input.",
        )

    def note_origin(self, node: Node) -> None:
        """Remember who made a value; a block that hands its input on made nothing."""
        if node.out_spec is not node.in_spec:
            for made in (node.out_spec, *leaves(node.out_spec)):
                self.origins.setdefault(id(made), node)

    def tie(self, frame: Frame, params: dict[str, ParamSpec]) -> None:
        """Refuse a shared block whose parameters would need another shape at a later use."""
        for name, spec in params.items():
            first = self.specs.setdefault(join(frame.home, name), spec)
            if first != spec:
                raise ShapeError(
                    f"shares {name} with {frame.home!r}, where it has shape {first.shape}, "
                    f"but needs {spec.shape} here",
                    fix="Use blocks of its own here, or bring the input to the same size.",
                )

    def explain(self, error: ShapeError, frame: Frame) -> ShapeError:
        """The same error with block, path, the origin of its values, and the repair."""
        values = {"": frame.x} if error.values is None else error.values
        lines = [f"{type(frame.block).__name__} {place(frame.path)} {error.fact}."]
        lines.append("  " + ", ".join(self.origin(*item) for item in values.items()) + ".")
        last = self.origins.get(id(list(values.values())[-1]))
        fix = error.fix if isinstance(error.fix, str) else error.fix(last and last.form)
        if fix:
            lines.append(f"  {fix}")
        error.args = ("\n".join(lines),)
        error.path, error.block = frame.path, frame.block
        return error

    def origin(self, label: str, spec: ValueSpec) -> str:
        """Where a value came from, in words."""
        made = self.origins.get(id(spec))
        if label:
            by = f" from {shown(made.block)} {place(made.path)}" if made else ""
            return f"{label} {shapes(spec)}{by}"
        if made is None:
            return f"{shapes(spec)} is the input of the network"
        return (
            f"{shapes(spec)} is the output of {type(made.block).__name__} {place(made.path)}, "
            f"from {shapes(made.in_spec)}"
        )


def as_node(network: Node | Block, input_shape: Any, options: dict[str, Any]) -> Node:
    """A node as it is, or a block inferred at a shape."""
    if not isinstance(network, (Node, Block)):
        raise FieldError(f"needs a block or a node, got {network!r}.")
    if isinstance(network, Node):
        if input_shape is not None or options:
            raise FieldError("a node has its input_shape and options already; leave them out.")
        return network
    if input_shape is None:
        raise FieldError(
            f"{type(network).__name__} is a block: give its input_shape=, or a node from infer."
        )
    return infer(network, input_shape, **options)


def again(node: Node, x: ValueSpec, **options: Any) -> Node:
    """The same network inferred again, at another input or with other options."""
    same = {"layout": leaves(x)[0].layout, "dtype": node.dtype, "param_dtype": node.param_dtype}
    return infer(node.block, x, **(same | options))
