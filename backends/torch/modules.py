"""The modules that torch needs beside its own. A printed listing holds those that it uses."""

from __future__ import annotations

import math
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn


class Permute(nn.Module):
    """The axes in another order; a view, no copy."""

    def __init__(self, *axes):
        super().__init__()
        self.axes = axes

    def forward(self, x):
        return x.permute(self.axes)

    def extra_repr(self):
        return ", ".join(map(str, self.axes))


class Select(nn.Module):
    """One member of a tuple."""

    def __init__(self, index):
        super().__init__()
        self.index = index

    def forward(self, x):
        return x[self.index]


class Parameter(nn.Module):
    """A learned or fixed array that meets every example."""

    def __init__(self, shape, merge, trainable=True):
        super().__init__()
        value = torch.zeros(shape)
        if trainable:
            self.value = nn.Parameter(value)
        else:
            self.register_buffer("value", value)
        self.merge = merge

    def forward(self, x):
        if self.merge == "add":
            return x + self.value
        if self.merge == "multiply":
            return x * self.value
        return torch.cat([self.value.expand(len(x), *self.value.shape), x], dim=1)

    def extra_repr(self):
        return f"{tuple(self.value.shape)}, merge={self.merge!r}"


class Sample(nn.Module):
    """A normal draw in training, given mean and log variance; the mean in evaluation."""

    def noise(self, mean):
        return torch.randn_like(mean)

    def forward(self, x):
        mean, log_variance = x
        if not self.training:
            return mean
        return mean + torch.exp(log_variance / 2) * self.noise(mean)


ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key, places, calls):
    """Two words of 32 random bits for each place: Threefry-2x32, 20 rounds (Salmon et al. 2011)."""
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    a, b = places + keys[0], calls.expand(places.shape) + keys[1]
    for i in range(5):
        for turn in ROTATIONS[i % 2]:
            a = (a + b) & 0xFFFFFFFF
            b = b & 0xFFFFFFFF
            b = ((b << turn | b >> (32 - turn)) & 0xFFFFFFFF) ^ a
        a, b = a + keys[(i + 1) % 3], b + keys[(i + 2) % 3] + i + 1
    return a & 0xFFFFFFFF, b & 0xFFFFFFFF


class Stream(nn.Module):
    """Random bits for each element, the same on every backend."""

    def __init__(self, key):
        super().__init__()
        self.key = key
        calls = torch.zeros((), dtype=torch.int64)
        self.register_buffer("calls", calls, persistent=False)

    def bits(self, shape):
        places = torch.arange(math.prod(shape), device=self.calls.device).reshape(shape)
        words = threefry(self.key, places, self.calls)
        self.calls.add_(1)
        return words


class SharedDropout(Stream):
    """Dropout whose draws are the same on every backend."""

    def __init__(self, rate, key, axes=()):
        super().__init__(key)
        self.rate = rate
        self.axes = axes  # along them one number is drawn

    def forward(self, x):
        if not self.training:
            return x
        drawn = [1 if axis in self.axes else n for axis, n in enumerate(x.shape)]
        keep = self.bits(drawn)[0] >> 8 >= round(self.rate * 2**24)
        return x * keep / (1 - self.rate)


class SharedSample(Stream, Sample):
    """A sample whose draws are the same on every backend."""

    def noise(self, mean):
        a, b = self.bits(mean.shape)
        wide = torch.promote_types(mean.dtype, torch.float32)
        u, v = ((a >> 9).to(wide) + 0.5) / 2**23, (b >> 9).to(wide) / 2**23
        noise = torch.sqrt(-2 * torch.log(u)) * torch.cos(2 * math.pi * v)
        return noise.to(mean.dtype)


class Residual(nn.Module):
    """The input, or its shortcut, plus the body."""

    def __init__(self, body, shortcut=None):
        super().__init__()
        self.shortcut = shortcut
        self.body = body

    def forward(self, x):
        around = x if self.shortcut is None else self.shortcut(x)
        return around + self.body(x)


class Parallel(nn.Module):
    """Every branch receives the same input, and their outputs are merged."""

    def __init__(self, branches, merge, dim=1):
        super().__init__()
        named = branches.items() if isinstance(branches, dict) else enumerate(branches)
        for name, branch in named:
            self.add_module(str(name), branch)
        self.merge = merge
        self.dim = dim

    def forward(self, x):
        outputs = [branch(x) for branch in self._modules.values()]
        if self.merge == "add":
            return reduce(torch.add, outputs)
        if self.merge == "multiply":
            return reduce(torch.mul, outputs)
        if self.merge == "mean":
            return reduce(torch.add, outputs) / len(outputs)
        if self.merge == "max":
            return reduce(torch.maximum, outputs)
        if self.merge == "concat":
            return torch.cat(outputs, self.dim)
        if self.merge == "stack":
            return torch.stack(outputs, self.dim)
        return tuple(outputs)


class Padded(nn.Module):
    """A convolution whose padding differs between the two ends of an axis."""

    def __init__(self, *args, pads, **kwargs):
        super().__init__(*args, **kwargs)
        self.pads = pads  # as F.pad takes them: last axis first

    def forward(self, x):
        return super().forward(F.pad(x, self.pads))

    def extra_repr(self):
        return f"{super().extra_repr()}, pads={self.pads}"


class PaddedConv1d(Padded, nn.Conv1d):
    pass


class PaddedConv2d(Padded, nn.Conv2d):
    pass


class PaddedConv3d(Padded, nn.Conv3d):
    pass


class Cropped(nn.Module):
    """A transposed convolution that cuts different widths off the two ends of an axis.

    Where a pad is positive there are more cells, which hold the bias alone.
    """

    def __init__(self, *args, pads, **kwargs):
        super().__init__(*args, **kwargs)
        self.pads = pads  # as F.pad takes them: last axis first, negative ones crop

    def forward(self, x):
        steps = (
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )
        y = self.convolve(x, self.weight, None, *steps)
        y = F.pad(y, self.pads)
        if self.bias is None:
            return y
        return y + self.bias.to(y.dtype).view(-1, *(1,) * len(self.stride))

    def extra_repr(self):
        return f"{super().extra_repr()}, pads={self.pads}"


class CroppedConvTranspose1d(Cropped, nn.ConvTranspose1d):
    convolve = staticmethod(F.conv_transpose1d)


class CroppedConvTranspose2d(Cropped, nn.ConvTranspose2d):
    convolve = staticmethod(F.conv_transpose2d)


class CroppedConvTranspose3d(Cropped, nn.ConvTranspose3d):
    convolve = staticmethod(F.conv_transpose3d)


class RealMean(nn.Module):
    """An average pool over the real cells of each window, where padding is not symmetric."""

    def __init__(self, *args, pads, **kwargs):
        super().__init__(*args, **kwargs)
        self.pads = pads  # as F.pad takes them: last axis first

    def forward(self, x):
        real = F.pad(torch.ones_like(x[:1, :1]), self.pads)
        return super().forward(F.pad(x, self.pads)) / super().forward(real)


class PaddedAvgPool1d(RealMean, nn.AvgPool1d):
    pass


class PaddedAvgPool2d(RealMean, nn.AvgPool2d):
    pass


class PaddedAvgPool3d(RealMean, nn.AvgPool3d):
    pass


class BiasedVariance(nn.Module):
    """A batch norm whose running variance is the biased one, as it is in Keras and Flax.

    torch normalises with the biased variance but keeps a running mean of the unbiased one.
    """

    def __init__(self, *args, scale=True, **kwargs):
        super().__init__(*args, **kwargs)
        if not scale:
            self.register_parameter("weight", None)

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        n = x.numel() // x.shape[1]
        # autograd keeps it, so it must not change afterwards
        var = self.running_var.clone()
        statistics = self.running_mean, var, True, self.momentum, self.eps
        # F.batch_norm would refuse a single value per channel, whose variance is 0
        cudnn = torch.backends.cudnn.enabled
        y = torch.batch_norm(x, self.weight, self.bias, *statistics, cudnn)
        self.num_batches_tracked.add_(1)
        self.running_var.mul_((1 - self.momentum) / n)
        if n > 1:
            self.running_var.add_(var, alpha=(n - 1) / n)
        return y


class BatchNorm1d(BiasedVariance, nn.BatchNorm1d):
    pass


class BatchNorm2d(BiasedVariance, nn.BatchNorm2d):
    pass


class BatchNorm3d(BiasedVariance, nn.BatchNorm3d):
    pass


class BiasOnlyLayerNorm(nn.LayerNorm):
    """A layer norm with a bias but no scale."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_parameter("weight", None)

    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, eps=self.eps) + self.bias


class GroupNorm(nn.GroupNorm):
    """A group norm for channels_last memory.

    There the backward of torch 2.13's own crashes the process if the input needs no gradient.
    """

    def forward(self, x):
        return super().forward(x.contiguous())


class BiasOnlyGroupNorm(nn.GroupNorm):
    """A group norm with a bias but no scale, for any memory."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_parameter("weight", None)

    def forward(self, x):
        y = F.group_norm(x.contiguous(), self.num_groups, eps=self.eps)
        return y + self.bias.view(-1, *(1,) * (x.dim() - 2))


class AnyPad(nn.Module):
    """Reflected or repeated edges on any number of axes; torch has them for three."""

    def __init__(self, pads, mode):
        super().__init__()
        self.pads = pads
        self.mode = mode

    def forward(self, x):
        for axis, (low, high) in enumerate(self.pads, 1):
            size = x.shape[axis]
            cells = torch.arange(-low, size + high, device=x.device)
            if self.mode == "edge":
                cells = cells.clamp(0, size - 1)
            else:
                cells = (size - 1) - ((size - 1) - cells.abs()).abs()
            x = x.index_select(axis, cells)
        return x


class NearestUpsample(nn.Module):
    """The old cell at the centre of each new one.

    Where a centre is the edge of two cells, torch's own may take another one backward than forward.
    """

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        for axis, m in enumerate(self.size, 2):
            centres = 2 * torch.arange(m, device=x.device) + 1
            x = x.index_select(axis, centres * x.shape[axis] // (2 * m))
        return x

    def extra_repr(self):
        return f"size={self.size}"


class Crop(nn.Module):
    """Fewer cells at both ends of the axes after the batch."""

    def __init__(self, *crops):
        super().__init__()
        self.crops = crops

    def forward(self, x):
        for axis, (low, high) in enumerate(self.crops, 1):
            x = x.narrow(axis, low, x.shape[axis] - low - high)
        return x

    def extra_repr(self):
        return ", ".join(map(str, self.crops))


class Custom(nn.Module):
    """Code of one's own on parameters and constants."""

    def __init__(self, params=None, constants=None, **fields):
        super().__init__()
        for name, value in (params or {}).items():
            self.register_parameter(name, nn.Parameter(value))
        for name, value in (constants or {}).items():
            self.register_buffer(name, value)
        for name, value in fields.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.compute(x, **self._parameters, **self._buffers)


class OneBias(nn.Module):
    """A recurrent layer with one bias that returns its outputs, or the last one, and no state.

    torch adds two biases, as cuDNN does; here the second is zero and no parameter.
    """

    def __init__(self, *args, return_sequences=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.return_sequences = return_sequences
        for name, bias in list(self.named_parameters()):
            if name.startswith("bias_hh"):
                delattr(self, name)
                self.register_buffer(name, torch.zeros_like(bias), persistent=False)

    def forward(self, x):
        outputs, state = super().forward(x)
        if self.return_sequences:
            return outputs
        last = state[0] if self.mode == "LSTM" else state
        return torch.cat(tuple(last), -1)

    def extra_repr(self):
        return f"{super().extra_repr()}, return_sequences={self.return_sequences}"


class RNN(OneBias, nn.RNN):
    pass


class LSTM(OneBias, nn.LSTM):
    pass


class GRU(OneBias, nn.GRU):
    pass


def members(x, has_mask):
    """Query, key, value and padding mask of a tensor, (query, key) or (query, key, value).

    With `has_mask`, the mask is the last of a tuple.
    """
    tensors = list(x) if isinstance(x, tuple) else [x]
    mask = tensors.pop() if has_mask else None
    query, key, value = (tensors + tensors[-1:] * 2)[:3]
    return query, key, value, mask


class MultiheadAttention(nn.MultiheadAttention):
    """torch's layer, which takes query, key, value and mask as one value and returns the output.

    The batch comes first, and True in a mask means that a key may be seen.
    """

    def __init__(self, *args, causal=False, mask=False, **kwargs):
        super().__init__(*args, batch_first=True, **kwargs)
        self.causal = causal
        self.mask = mask

    def forward(self, x):
        query, key, value, mask = members(x, self.mask)
        hidden = later = None
        if mask is not None:
            hidden = ~mask
            # of one tensor, torch takes a path where hidden rows are NaN
            key = key.view_as(key)
        if self.causal:
            pairs = query.shape[1], key.shape[1]
            later = torch.ones(pairs, dtype=torch.bool, device=query.device).triu(1)
        masks = {
            "key_padding_mask": hidden,
            "attn_mask": later,
            "is_causal": self.causal,
        }
        return super().forward(query, key, value, need_weights=False, **masks)[0]


class GroupedQueryAttention(nn.Module):
    """Attention with heads of any size, groups of which may share a key and a value."""

    def __init__(
        self,
        embed_dim,
        out_features,
        num_heads,
        num_kv_heads,
        head_dim,
        kdim=None,
        vdim=None,
        bias=True,
        causal=False,
        mask=False,
    ):
        super().__init__()
        heads, kv_heads = num_heads * head_dim, num_kv_heads * head_dim
        self.q_proj = nn.Linear(embed_dim, heads, bias=bias)
        self.k_proj = nn.Linear(kdim or embed_dim, kv_heads, bias=bias)
        self.v_proj = nn.Linear(vdim or embed_dim, kv_heads, bias=bias)
        self.out_proj = nn.Linear(heads, out_features, bias=bias)
        self.head_dim = head_dim
        self.causal = causal
        self.mask = mask

    def heads(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(self, x):
        query, key, value, mask = members(x, self.mask)
        q = self.heads(self.q_proj(query))
        k = self.heads(self.k_proj(key))
        v = self.heads(self.v_proj(value))
        options = {"is_causal": self.causal, "enable_gqa": q.shape[1] != k.shape[1]}
        if mask is not None:
            mask = mask[:, None, None, :].expand(-1, 1, q.shape[2], -1)
            options |= {
                "attn_mask": mask.tril() if self.causal else mask,
                "is_causal": False,
            }
        y = F.scaled_dot_product_attention(q, k, v, **options)
        return self.out_proj(y.transpose(1, 2).flatten(2))
