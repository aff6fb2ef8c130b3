"""Our own blocks with fused convolutions where that cannot be told from the plain modules, except by the clock.

A block becomes one by changing its class: parameters, hooks and state dict stay. Its copies and pickles are plain.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from mmcv.cnn.bricks.drop import DropPath
from torch import Tensor, nn
from torch.nn.functional import conv2d

from mmres2net.deploy.fuse import Pair, is_foldable, is_unmodified
from mmres2net.deploy.onednn import CHANNELS_LAST, FoldCache, FusedConv, mkl_is_slow, runs_fused
from mmres2net.models.res2net import Bottle2neck, Res2Net


def use_fused_blocks(model: nn.Module) -> int:
    """Make the Res2Net blocks and stems in ``model`` fuse their operations in inference, in place.

    Parameters and state dict stay what they are. Operations are fused in float32 on a CPU where no gradient is asked
    for and norms are in evaluation mode, also in frozen stages of a network in training. In all other cases (hooks,
    patched methods, replaced parts, autocast, compilation, export, FLOP counters) the plain modules run. Changed are
    exactly our own types and, where MKL is slow, ``nn.Linear``, also with gradients. Returned is how many blocks fuse
    their operations.
    """
    for module in list(model.modules()):
        if type(module) is Bottle2neck:
            module.__class__ = FusedBottle2neck
        elif type(module) is nn.Linear and mkl_is_slow():
            module.__class__ = FusedLinear
        elif type(module) is Res2Net:
            module.__class__ = FusedRes2Net
            for stage in module.stage_modules():
                if type(stage) is nn.Sequential:
                    stage.__class__ = FusedStage
    return sum(type(module) is FusedBottle2neck for module in model.modules())


class _Fused(nn.Module):
    """What the fused classes share: the cache of their convolutions, and copies of the plain class."""

    plain: ClassVar[type[nn.Module]]
    _folds: FoldCache | None = None

    def train(self, mode: bool = True) -> Any:
        if self._folds is not None:
            self._folds.compare = True
        return super().train(mode)

    def _convs(
        self, pairs: Sequence[Pair], skipped: Iterable[nn.Module], *inputs: Tensor | None
    ) -> list[FusedConv] | None:
        """Return the fused convolutions of ``pairs``, or None where this or a ``skipped`` module has to run itself."""
        plain = is_unmodified(self, self.plain) and all(map(is_unmodified, skipped))
        if not plain or not all(is_foldable(*pair) for pair in pairs):
            return None
        if self._folds is None:
            self._folds = FoldCache()
        return self._folds.get(pairs, inputs)

    def _get_name(self) -> str:
        return self.plain.__name__

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != '_folds'}

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__new__, (self.plain,), self.__getstate__()


class FusedBottle2neck(_Fused, Bottle2neck):
    """The Res2Net module with norms, ReLUs and the residual addition inside of the convolutions."""

    plain = Bottle2neck

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """As :class:`Bottle2neck`."""
        convs = self.fused_convs(x, shortcut)
        return super().forward(x, shortcut) if convs is None else self.run(convs, x, shortcut)

    def fused_convs(self, x: Tensor, shortcut: Tensor | None = None) -> list[FusedConv] | None:
        """Return the convolutions for :meth:`run`, or None where the plain block has to run."""
        if not runs_fused(x, shortcut):
            return None
        parts: Any = self._modules
        drop_path, plugins = parts['drop_path'], [parts[f'after_conv{i}'] for i in (1, 2, 3)]
        if any(map(len, plugins)) or (drop_path.training and type(drop_path) is DropPath):
            return None
        inner = zip(parts['convs']._modules.values(), parts['bns']._modules.values(), strict=True)
        pairs = [(parts['conv1'], parts['bn1']), *inner, (parts['conv3'], parts['bn3'])]
        skipped = [parts['relu'], drop_path, *plugins]
        downsample = parts['downsample']
        if type(downsample) is nn.Sequential and is_unmodified(downsample):
            last = tuple(downsample._modules.values())[-2:]
            if len(last) == 2 and is_foldable(*last):
                pairs.append(last)
        return self._convs(pairs, skipped, x, shortcut)

    def run(
        self, convs: Sequence[FusedConv], x: Tensor, shortcut: Tensor | None = None, *, overwrite: bool = False
    ) -> Tensor:
        """Return what :meth:`forward` returns; ``overwrite`` allows to use the memory of ``x`` for it."""
        count, downsample = len(self.convs) + 1, self.downsample
        x = x.contiguous(memory_format=CHANNELS_LAST)
        out = self._fused_scales(convs[0](x, relu=True), convs[1:count])
        if shortcut is not None:
            overwrite = False
        elif len(convs) > count + 1:  # the convolution of the shortcut, behind its pool
            for module in list(downsample.children())[:-2]:
                x = module(x)
            shortcut, overwrite = convs[-1](x, relu=False), True
        else:
            shortcut = downsample(x)
            overwrite = overwrite and _is_identity(downsample)
        if _is_identity(self.se):
            return convs[count].add_relu(out, shortcut, inplace=overwrite)
        return (self.se(convs[count](out, relu=False)) + shortcut).relu_()

    def _fused_scales(self, x: Tensor, convs: Sequence[FusedConv]) -> Tensor:
        """Do what ``_multi_scale`` does, and write the results into ``x`` where each split feeds the next."""
        splits = x.split(self.width, 1)
        if len(splits) == 1:
            return convs[0](x, relu=True)
        if self.is_first:
            ys = [conv(split, relu=True) for conv, split in zip(convs, splits, strict=False)]
            return torch.cat([*ys, *(self.pool(split) for split in splits[len(ys) :])], 1)
        y = convs[0](splits[0], relu=True)
        for conv, split, last in zip(convs[1:], splits[1:], splits, strict=False):
            fed = y + split
            last.copy_(y)
            y = conv(fed, relu=True)
        splits[len(convs) - 1].copy_(y)
        return x


class FusedStage(_Fused, nn.Sequential):
    """A stage of blocks, each of which may overwrite what a fused block before it returned."""

    plain = nn.Sequential

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Sequential``."""
        if not runs_fused(input) or not is_unmodified(self, nn.Sequential):
            return super().forward(input)
        x, is_ours = input, False
        block: Any
        for block in self:
            convs = block.fused_convs(x) if type(block) is FusedBottle2neck else None
            # A block without hooks: only this loop reads its input and its output.
            x = block(x) if convs is None else block.run(convs, x, overwrite=is_ours)
            is_ours = convs is not None
        return x


class FusedLinear(_Fused, nn.Linear):
    """A linear layer that runs as a convolution of one row of pixels, also with gradients."""

    plain = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Linear``."""
        if runs_fused() and input.shape[-1:] == self.weight.shape[1:]:
            x, kernel = input.reshape(1, 1, -1, input.shape[-1]).permute(0, 3, 1, 2), self.weight[:, :, None, None]
            fits = min(x.shape[3], *self.weight.shape) >= 128 and is_unmodified(self, nn.Linear)
            if fits and runs_fused(x, kernel) and torch.get_num_threads() > 1:  # one thread leaves both to MKL
                return conv2d(x, kernel, self.bias).permute(0, 2, 3, 1).reshape(*input.shape[:-1], -1)
        return super().forward(input)


def _is_identity(module: nn.Module) -> bool:
    return type(module) is nn.Identity and is_unmodified(module)


class FusedRes2Net(_Fused, Res2Net):
    """The backbone with a fused stem."""

    plain = Res2Net

    def stem(self, x: Tensor) -> Tensor:
        """As :class:`Res2Net`."""
        parts: Any = self._modules
        conv1 = parts['conv1']
        first = list(conv1.children()) if type(conv1) is nn.Sequential and is_unmodified(conv1) else [conv1]
        chain = [*first, parts['bn1'], parts['relu']]
        relus = chain[2::3]
        plain = not runs_fused(x) or any(type(relu) is not nn.ReLU for relu in relus)
        convs = None if plain else self._convs(list(zip(chain[::3], chain[1::3], strict=False)), relus, x)
        if convs is None:
            return super().stem(x)
        x = x.contiguous(memory_format=CHANNELS_LAST)
        for conv in convs:
            x = conv(x, relu=True)
        return self.maxpool(x)
