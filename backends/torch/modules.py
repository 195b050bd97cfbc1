"""The modules that torch needs beside its own. A printed listing holds those that it uses."""

from __future__ import annotations

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
        steps = self.stride, self.padding, self.output_padding, self.groups, self.dilation
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
        var = self.running_var.clone()  # autograd keeps it, so it must not change afterwards
        statistics = self.running_mean, var, True, self.momentum, self.eps
        # F.batch_norm would refuse a single value per channel, whose variance is 0
        y = torch.batch_norm(x, self.weight, self.bias, *statistics, torch.backends.cudnn.enabled)
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
