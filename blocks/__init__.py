"""isoblocks: write a network once, as blocks; get it in PyTorch, Keras, Flax and NumPy.

Block ──infer──▶ Node ──init──▶ Params
                  ├──lower────▶ nn.Module | keras.Model | nnx.Module | reference
                  ├──source───▶ the same network as readable framework code
                  └──params_of▶ Params, back in canonical form
"""

from blocks import initializers
from blocks._activations import activations
from blocks._backends import installed as backends
from blocks._block import Block, Combinator, Composite, Leaf
from blocks._certificate import Certificate, Verification, certify, load_certificate, verify
from blocks._checkpoint import Checkpoint, load_checkpoint
from blocks._compare import compare
from blocks._comparison import Comparison, load_comparison
from blocks._diff import Diff, diff
from blocks._draw import Drawing, draw
from blocks._errors import (
    BackendError,
    BlockError,
    FieldError,
    FileError,
    MissingRuleError,
    ParamError,
    ShapeError,
    UnsupportedError,
)
from blocks._evaluate import accuracy, evaluate
from blocks._export import export_source
from blocks._files import fingerprint, from_json, load, save, to_json
from blocks._fold import fold_batchnorm
from blocks._foreign import WeightMap, Weights, import_params, match_weights, read_weights
from blocks._infer import infer
from blocks._initial import by_activation
from blocks._lint import Lint, Lints, lint
from blocks._listing import listing
from blocks._models import (
    apply,
    copy_params,
    gradients,
    load_params,
    lower,
    params_of,
    set_trainable,
    source,
    trainable_of,
)
from blocks._param_diff import ParamDiff, diff_params
from blocks._param_files import load_params_file, save_params
from blocks._params import count, init, select
from blocks._parity import parity
from blocks._plan import EarlyStop, History
from blocks._spec import Node, ParamSpec, Spec
from blocks._train import fit
from blocks._transpose import autoencoder, transpose
from blocks._tree import at, replace
from blocks._validate import Validation, validate
from blocks.activation import (
    CELU,
    ELU,
    GELU,
    SELU,
    Activation,
    HardShrink,
    HardSigmoid,
    HardSiLU,
    HardTanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    SoftShrink,
    Softsign,
    Tanh,
    TanhShrink,
)
from blocks.attention import MultiHeadAttention
from blocks.builder import Builder, ConvBuilder, MLPBuilder, output_size, transposed_size
from blocks.combine import Parallel, Repeat, Residual, Sequential, Shared
from blocks.composite import (
    MLP,
    Bottleneck,
    ConvNormAct,
    DenseBlock,
    Inception,
    ResidualBlock,
    SqueezeExcite,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)
from blocks.conv import Conv, ConvTranspose
from blocks.custom import Custom
from blocks.linear import Dense, Embedding
from blocks.loss import VAELoss
from blocks.norm import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from blocks.optimizer import SGD, Adagrad, Adam, AdamW
from blocks.pattern import EinMix, Rearrange, Reduce
from blocks.pool import AdaptiveAvgPool, AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from blocks.recurrent import GRU, LSTM, SimpleRNN
from blocks.regularisation import Dropout
from blocks.schedule import CosineDecay, ExponentialDecay, PiecewiseConstant, StepDecay
from blocks.shape import Crop, Flatten, Pad, Permute, Reshape, Upsample
from blocks.value import Constant, Identity, Parameter, Sample, Select

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "MLP",
    "SELU",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdaptiveAvgPool",
    "AvgPool",
    "BackendError",
    "BatchNorm",
    "Block",
    "BlockError",
    "Bottleneck",
    "Builder",
    "Certificate",
    "Checkpoint",
    "Combinator",
    "Comparison",
    "Composite",
    "Constant",
    "Conv",
    "ConvBuilder",
    "ConvNormAct",
    "ConvTranspose",
    "CosineDecay",
    "Crop",
    "Custom",
    "Dense",
    "DenseBlock",
    "Diff",
    "Drawing",
    "Dropout",
    "EarlyStop",
    "EinMix",
    "Embedding",
    "ExponentialDecay",
    "FieldError",
    "FileError",
    "Flatten",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "HardShrink",
    "HardSiLU",
    "HardSigmoid",
    "HardTanh",
    "History",
    "Identity",
    "Inception",
    "LayerNorm",
    "Leaf",
    "LeakyReLU",
    "Lint",
    "Lints",
    "LogSigmoid",
    "LogSoftmax",
    "MLPBuilder",
    "MaxPool",
    "Mish",
    "MissingRuleError",
    "MultiHeadAttention",
    "Node",
    "Pad",
    "Parallel",
    "ParamDiff",
    "ParamError",
    "ParamSpec",
    "Parameter",
    "Permute",
    "PiecewiseConstant",
    "RMSNorm",
    "ReLU",
    "ReLU6",
    "Rearrange",
    "Reduce",
    "Repeat",
    "Reshape",
    "Residual",
    "ResidualBlock",
    "Sample",
    "Select",
    "Sequential",
    "ShapeError",
    "Shared",
    "SiLU",
    "Sigmoid",
    "SimpleRNN",
    "SoftShrink",
    "Softmax",
    "Softplus",
    "Softsign",
    "Spec",
    "SqueezeExcite",
    "StepDecay",
    "Tanh",
    "TanhShrink",
    "TransformerDecoderLayer",
    "TransformerEncoderLayer",
    "UnsupportedError",
    "Upsample",
    "VAELoss",
    "Validation",
    "Verification",
    "WeightMap",
    "Weights",
    "accuracy",
    "activations",
    "apply",
    "at",
    "autoencoder",
    "backends",
    "by_activation",
    "certify",
    "compare",
    "copy_params",
    "count",
    "diff",
    "diff_params",
    "draw",
    "evaluate",
    "export_source",
    "fingerprint",
    "fit",
    "fold_batchnorm",
    "from_json",
    "gradients",
    "import_params",
    "infer",
    "init",
    "initializers",
    "lint",
    "listing",
    "load",
    "load_certificate",
    "load_checkpoint",
    "load_comparison",
    "load_params",
    "load_params_file",
    "lower",
    "match_weights",
    "output_size",
    "params_of",
    "parity",
    "read_weights",
    "replace",
    "save",
    "save_params",
    "select",
    "set_trainable",
    "source",
    "to_json",
    "trainable_of",
    "transpose",
    "transposed_size",
    "validate",
    "verify",
]
