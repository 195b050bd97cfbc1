"""Recurrent blocks: one step after the other along a time axis."""

from __future__ import annotations

from typing import Any, ClassVar

from blocks import _fields as fields
from blocks._block import Leaf, block
from blocks._errors import ShapeError
from blocks._shape import check_stated, need_known
from blocks._spec import ParamSpec, Spec, shapes
from blocks.initializers import Array, Init, PerGate, initializer


@block
class Recurrent(Leaf):
    """The base: a state that starts at zero and is changed by every step of the input.

    `gates` is the number of (in, features) blocks in the kernel.
    """

    gates: ClassVar[int] = 1

    features: int = fields.integer()
    return_sequences: bool = fields.flag(False)
    bidirectional: bool = fields.flag(False)
    use_bias: bool = fields.flag(True)
    in_features: int | None = fields.integer(None, optional=True)
    kernel_init: Init = initializer("glorot_uniform")
    recurrent_init: Init = initializer("orthogonal")
    bias_init: Init = initializer("zeros")

    def out_spec(self, x: Spec) -> Spec:
        if x.rank != 2:
            raise ShapeError(
                f"needs a time axis and features, got {shapes(x)}",
                fix=lambda made: time_axis_repair(x, made),
            )
        features = self.features * (1 + self.bidirectional)
        return x.with_shape((x.shape[0], features) if self.return_sequences else (features,))

    def param_specs(self, x: Spec) -> dict[str, ParamSpec]:
        inputs = need_known(x, x.shape[-1], "input features")
        check_stated(self.in_features, inputs)
        width = self.gates * self.features
        recurrent = self.recurrent_init  # an array holds all gates already
        if not isinstance(recurrent, Array):
            recurrent = PerGate(recurrent, self.gates)
        specs = {
            "kernel": ParamSpec((inputs, width), self.kernel_init),
            "recurrent_kernel": ParamSpec((self.features, width), recurrent),
        }
        if self.use_bias:
            specs["bias"] = ParamSpec((width,), self.bias_init)
        if self.bidirectional:
            specs |= {f"backward_{name}": spec for name, spec in specs.items()}
        return specs

    def multiply_adds(self, x: Spec, y: Spec) -> int | None:
        time, inputs = x.shape
        if time is None or inputs is None:
            return None
        step = (inputs + self.features) * self.gates * self.features
        return time * step * (1 + self.bidirectional)


def time_axis_repair(x: Spec, made: Any) -> str:
    if isinstance(made, Recurrent):
        return f"Set return_sequences=True in the {type(made).__name__} before it."
    if x.rank == 0 or None in x.shape:
        return "Give it an input (time, features), the batch not counted."
    if x.rank == 1:
        steps = x.shape[0]
        return f"The time axis is missing: Reshape(({steps}, 1)) makes {steps} steps of one number."
    return f"Bring it to (time, features): Reshape((-1, {x.shape[-1]})) does."


@block
class SimpleRNN(Recurrent):
    """A state that is a squashed sum of the input and the state before it (Elman 1990).

        h[t] = f(x[t] @ kernel + h[t-1] @ recurrent_kernel + bias),   h[-1] = 0

    Shape: (time, in) -> (features,), the last h; with return_sequences (time, features), every h.
        2 * features if bidirectional. The time axis may have any length.
    Parameters: kernel (in, features); recurrent_kernel (features, features); bias (features,) if
        use_bias. If bidirectional also backward_kernel, backward_recurrent_kernel, backward_bias.
    Fields:
        features: size of the state.
        return_sequences: whether to return the states of all steps, or the last one.
        bidirectional: whether a second set of parameters reads the input from its end. Both
            outputs are joined, forward first; those of the second stand at the step that they have
            read last, and its last state is the one at step 0.
        use_bias: whether to add a bias.
        in_features: stated only to be checked; it is inferred.
        kernel_init, recurrent_init, bias_init: initialisers.
        activation: f, "tanh" or "relu".
    Differs: torch calls it RNN, reads (time, batch, in) unless told otherwise, returns outputs and
        state, and has two biases whose sum is meant: twice the parameters, twice the step of Adam.
        By default torch draws all of it from U(-1/sqrt(features), 1/sqrt(features)), Keras and
        Flax the recurrent kernel orthogonal, the bias 0, and the kernel from Glorot's uniform and
        LeCun's normal. Keras returns the last state, torch and Flax the sequence. Flax's cell
        always has a bias. Here: one bias; Glorot, orthogonal, 0; the last state.

    >>> import blocks as bl
    >>> bl.infer(bl.SimpleRNN(5), (None, 3)).out_spec.shape
    (5,)
    """

    activation: str = fields.choice(("tanh", "relu"), "tanh")


@block
class LSTM(Recurrent):
    """A cell c that gates keep, change and show as h (Hochreiter and Schmidhuber 1997).

        i, f, g, o = the four parts of x[t] @ kernel + h[t-1] @ recurrent_kernel + bias
        c[t] = sigmoid(f) * c[t-1] + sigmoid(i) * tanh(g)
        h[t] = sigmoid(o) * tanh(c[t]),   h[-1] = c[-1] = 0

    Shape: (time, in) -> (features,), the last h; with return_sequences (time, features), every h.
        2 * features if bidirectional. The time axis may have any length.
    Parameters: kernel (in, 4 * features); recurrent_kernel (features, 4 * features); bias
        (4 * features,) if use_bias; columns in the order i, f, g, o. If bidirectional also
        backward_kernel, backward_recurrent_kernel, backward_bias.
    Fields:
        features: size of h and of c.
        return_sequences: whether to return h at all steps, or the last one.
        bidirectional: whether a second set of parameters reads the input from its end. Both
            outputs are joined, forward first; those of the second stand at the step that they have
            read last, and its last h is the one at step 0.
        use_bias: whether to add a bias.
        in_features: stated only to be checked; it is inferred.
        kernel_init, bias_init: initialisers.
        recurrent_init: initialiser of each (features, features) block of the recurrent kernel.
    Differs: the order of the gates is i, f, g, o everywhere, Keras writes c for g. torch has two
        biases whose sum is meant: twice the parameters, twice the step of Adam. Keras draws the
        bias of the forget gate as 1 (unit_forget_bias) and the recurrent kernel as one
        (features, 4 * features) matrix; torch draws everything from U(-1/sqrt(features),
        1/sqrt(features)). Keras returns the last h, torch and Flax the sequence, torch with the
        state beside it. Flax's cell always has a bias. Here: one bias, all 0; the last h.

    >>> import blocks as bl
    >>> {k: p.shape for k, p in bl.infer(bl.LSTM(5), (7, 3)).params.items()}
    {'kernel': (3, 20), 'recurrent_kernel': (5, 20), 'bias': (20,)}
    """

    gates = 4


@block
class GRU(Recurrent):
    """A state that moves towards a candidate as far as a gate lets it (Cho et al. 2014).

        r, z, n = the three parts of x[t] @ kernel + bias
        u, v, w = the three parts of h[t-1] @ recurrent_kernel
        r, z = sigmoid(r + u), sigmoid(z + v)
        h[t] = (1 - z) * tanh(n + r * w) + z * h[t-1],   h[-1] = 0

    The reset gate r acts after the product with the recurrent kernel.

    Shape: (time, in) -> (features,), the last h; with return_sequences (time, features), every h.
        2 * features if bidirectional. The time axis may have any length.
    Parameters: kernel (in, 3 * features); recurrent_kernel (features, 3 * features); bias
        (3 * features,) if use_bias; columns in the order r, z, n. If bidirectional also
        backward_kernel, backward_recurrent_kernel, backward_bias.
    Fields:
        features: size of the state.
        return_sequences: whether to return the states of all steps, or the last one.
        bidirectional: whether a second set of parameters reads the input from its end. Both
            outputs are joined, forward first; those of the second stand at the step that they have
            read last, and its last state is the one at step 0.
        use_bias: whether to add a bias.
        in_features: stated only to be checked; it is inferred.
        kernel_init, bias_init: initialisers.
        recurrent_init: initialiser of each (features, features) block of the recurrent kernel.
    Differs: the gates are r, z, n in torch and Flax, z, r, h in Keras. torch and Keras have a
        second bias, which r scales where it belongs to n; Flax has none, so no Flax cell equals
        torch's default. The paper's r acts before the product: reset_after=False in Keras, which
        neither torch nor Flax has. The rest as for LSTM. Here: one bias, all 0; the last state.

    >>> import blocks as bl
    >>> bl.infer(bl.GRU(5, bidirectional=True, return_sequences=True), (7, 3)).out_spec.shape
    (7, 10)
    """

    gates = 3
