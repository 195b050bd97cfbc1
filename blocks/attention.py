"""Attention."""

from __future__ import annotations

import math
from typing import Any

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import FieldError, ShapeError
from blocks._shape import check_stated, need_known
from blocks._spec import Kind, ParamSpec, Size, Spec, ValueSpec, map_value, shapes
from blocks.initializers import Init, initializer


@block
class MultiHeadAttention(Leaf):
    """Every position of a query takes a weighted mean of values, with weights of its own per head.

        y = concat_h(softmax(q_h k_g^T / sqrt(head_size)) v_g) @ out_kernel + out_bias

    where q = query @ query_kernel + query_bias, cut into num_heads parts of head_size, and k and v
    likewise into num_kv_heads parts; g = h // (num_heads // num_kv_heads). The softmax is over the
    keys that a position may see; a position that may see none gets 0 from every head, so out_bias.

    Shape: (time, in), which attends to itself; or (query, key_value), or (query, key, value) with
        features of their own, key and value of one length; -> (query time, features). With `mask`
        the tuple's last member is a padding mask of booleans, (key time,), so (x, mask) attends to
        itself. Any time may be None.
    Parameters: query_kernel (in, num_heads * head_size), key_kernel and value_kernel (in,
        num_kv_heads * head_size), out_kernel (num_heads * head_size, features), head after head;
        query_bias, key_bias, value_bias, out_bias if use_bias. key_bias changes nothing, as it adds
        the same to all scores of a position, but all frameworks have it.
    Fields:
        num_heads: number of heads.
        head_size: features of a head; None for the query's features / num_heads.
        features: number of output features; None for the query's.
        num_kv_heads: heads of keys and values, each for a group of neighbouring heads of the query
            (grouped-query attention); None for num_heads.
        causal: whether position i of the query sees keys up to i only, counted from the start
            also where lengths differ.
        mask: whether a padding mask comes last: True for a key that may be seen.
        use_bias: whether all four projections add a bias.
        in_features: of the query; stated only to be checked; it is inferred.
        kernel_init, bias_init: initialisers.
    Differs: True in a mask means "see" here, in Keras, in Flax and in torch's function, but "do not
        see" in torch's layer. A position that sees no key gives NaN in torch's layer if it is
        evaluated without gradients, and the mean of all values in Flax and, fused, in Keras.
        torch's layer takes the total size of its heads, which is that of query and output, Keras
        the size of one head, Flax the total. torch packs three kernels into one if their inputs
        have one size, and takes time first unless told otherwise. All count causal positions from
        the start. JAX's softmax is in float32 even in a float64 network.

    >>> import blocks as bl
    >>> bl.infer(bl.MultiHeadAttention(2), ((7, 6), (9, 4))).out_spec.shape
    (7, 6)
    """

    takes_tuple = True

    num_heads: int = fields.integer()
    head_size: int | None = fields.integer(None, optional=True)
    features: int | None = fields.integer(None, optional=True)
    num_kv_heads: int | None = fields.integer(None, optional=True)
    causal: bool = fields.flag(False)
    mask: bool = fields.flag(False)
    use_bias: bool = fields.flag(True)
    in_features: int | None = fields.integer(None, optional=True)
    kernel_init: Init = initializer("glorot_uniform")
    bias_init: Init = initializer("zeros")

    def check(self) -> None:
        if self.num_heads % (self.num_kv_heads or self.num_heads):
            raise FieldError(
                f"MultiHeadAttention.num_kv_heads={self.num_kv_heads} does not divide "
                f"num_heads={self.num_heads}."
            )

    def kinds(self, x: ValueSpec) -> Any:
        found = map_value(lambda _: Kind("float"), x)
        return (*found[:-1], Kind("bool")) if self.mask else found

    def members(self, x: ValueSpec) -> tuple[Spec, Spec, Spec, Spec | None]:
        """Query, key, value and padding mask."""
        members = x if isinstance(x, tuple) else (x,)
        *tensors, mask = members if self.mask else (*members, None)
        if not 1 <= len(tensors) <= 3 or any(isinstance(member, tuple) for member in members):
            last = ", and then a padding mask" if self.mask else ""
            raise ShapeError(
                f"takes one tensor, (query, key_value) or (query, key, value){last}, "
                f"got {shapes(x)}",
                fix="Give the mask, or leave out mask=True." if self.mask else "",
            )
        query, key, value = (tensors + tensors[-1:] * 2)[:3]
        for name, spec in {"query": query, "key": key, "value": value}.items():
            if spec.rank != 2:
                raise ShapeError(
                    f"needs a {name} of time and features, got {shapes(spec)}",
                    fix=self.rank_repair(spec),
                )
        if mask is not None and mask.rank != 1:
            raise ShapeError(
                f"needs a padding mask of one axis, the time of its key, got {shapes(mask)}",
                fix=f"Give a mask of shape ({key.shape[0]},).",
            )
        for name, spec in {"value": value, "padding mask": mask}.items():
            if spec is not None and unequal(spec.shape[0], key.shape[0]):
                raise ShapeError(
                    f"needs a {name} as long as its key, got {spec.shape[0]} and {key.shape[0]}",
                    fix="Bring both to one length.",
                )
        return query, key, value, mask

    def rank_repair(self, x: Spec) -> str:
        if x.rank > 2:
            return f"Write Reshape((-1, {x.shape[-1]})) before it."
        return "" if self.mask else "If that is a padding mask, write mask=True."

    def out_spec(self, x: ValueSpec) -> Spec:
        query = self.members(x)[0]
        return query.with_shape((query.shape[0], self.features or query.shape[1]))

    def resolve(self, x: ValueSpec) -> dict[str, Any]:
        sizes = tuple(need_known(s, s.shape[1], "input features") for s in self.members(x)[:3])
        check_stated(self.in_features, sizes[0])
        if self.head_size is None and sizes[0] % self.num_heads:
            heads = math.gcd(sizes[0], self.num_heads)
            raise ShapeError(
                f"has num_heads={self.num_heads}, which does not divide the {sizes[0]} features "
                "of its query",
                fix=f"Use num_heads={heads}, or state head_size.",
            )
        return {
            "sizes": sizes,
            "head_size": self.head_size or sizes[0] // self.num_heads,
            "num_kv_heads": self.num_kv_heads or self.num_heads,
        }

    def param_specs(self, x: ValueSpec) -> dict[str, ParamSpec]:
        specs = {}
        for name, (inputs, outputs) in self.projections(x).items():
            specs[f"{name}_kernel"] = ParamSpec((inputs, outputs), self.kernel_init)
            if self.use_bias:
                specs[f"{name}_bias"] = ParamSpec((outputs,), self.bias_init)
        return specs

    def projections(self, x: ValueSpec) -> dict[str, tuple[int, int]]:
        """Input and output features of each."""
        found = self.resolve(x)
        query, key, value = found["sizes"]
        heads = self.num_heads * found["head_size"]
        shared = found["num_kv_heads"] * found["head_size"]
        return {
            "query": (query, heads),
            "key": (key, shared),
            "value": (value, shared),
            "out": (heads, self.features or query),
        }

    def multiply_adds(self, x: ValueSpec, y: Spec) -> int | None:
        query, key = (spec.shape[0] for spec in self.members(x)[:2])
        if query is None or key is None:
            return None
        sizes = {name: n * m for name, (n, m) in self.projections(x).items()}
        per_query, per_key = sizes["query"] + sizes["out"], sizes["key"] + sizes["value"]
        heads = self.num_heads * self.resolve(x)["head_size"]
        return query * per_query + key * per_key + 2 * query * key * heads


def unequal(a: Size, b: Size) -> bool:
    """Whether two lengths are known to differ."""
    return None not in (a, b) and a != b
