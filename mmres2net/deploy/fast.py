"""Drop-in subclasses of the backbones' parts and of mmcv's ConvModule with a fast path for inference.

A module becomes one by changing its class: parameters, buffers, hooks and state dict stay what they are. Each takes the
fast path only where it gives what the module itself would give: no gradient is asked for, norms are on their running
statistics, and nobody has hooked a part in between. Otherwise the module does what it always did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmres2net.deploy.folding import CHANNELS_LAST, FoldedConv, Folds, Link, is_hooked, runs_eagerly
from mmres2net.deploy.live import LiveNormBlock, is_live, live_parameters
from mmres2net.deploy.training import FrozenNormBlock, Geometry, Plan, folded_pairs, is_frozen, is_watched
from mmres2net.models.dla import Bottleneck, Root
from mmres2net.models.res2net import Bottle2neck, Res2Net

Step = tuple[Link | None, nn.Module | None, bool]

if TYPE_CHECKING:
    _Module = nn.Module
else:
    _Module = object  # a mixin: the module is the class behind it


class Fast(_Module):
    """What the fast subclasses share: the folded convolutions and when they may be used."""

    folds: Folds

    def links(self) -> list[Link]:
        """Return the convolutions and norms that are folded."""
        raise NotImplementedError

    def is_eligible(self) -> bool:
        """Whether a module built like this one has a fast path at all."""
        return all(link.is_foldable() for link in self.links())

    def others(self) -> Iterable[nn.Module]:
        """Yield further parts that the fast path does not call, so that nobody may have hooked them."""
        return ()

    def slots(self) -> list[tuple[dict[str, Any], str]]:
        """Return the places of the parts that all these are taken from."""
        return [(module._modules, name) for module in self.modules() for name in module._modules]

    def folded(self, x: Tensor, *more: Tensor | None) -> Sequence[FoldedConv] | None:
        """Return the folded convolutions, or None where the module itself has to do the work."""
        if torch.is_grad_enabled() and self._takes_gradients((x, *more)):
            return None
        return self.folds.of(self, x)

    def _takes_gradients(self, inputs: Iterable[Tensor | None]) -> bool:
        return any(x is not None and x.requires_grad for x in inputs) or any(p.requires_grad for p in self.parameters())

    def train(self, mode: bool = True) -> Any:
        self.folds.drop()  # hooks that keep an average of the weights swap them through .data, unseen
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.folds.drop()
        return super()._apply(fn, recurse)


class FastBottle2neck(Fast, Bottle2neck):
    """The Res2Net module without a norm, with ReLUs and the addition inside of the convolutions."""

    def links(self) -> list[Link]:
        inner = [Link(conv, norm) for conv, norm in zip(self.convs, self.bns, strict=True)]  # type: ignore[arg-type]
        return [Link(self.conv1, self.bn1), *inner, Link(self.conv3, self.bn3)]  # type: ignore[arg-type]

    def is_eligible(self) -> bool:
        plugins = (self.after_conv1, self.after_conv2, self.after_conv3)
        return super().is_eligible() and not any(len(plugin) for plugin in plugins)

    def others(self) -> Iterable[nn.Module]:
        return (self.relu, self.drop_path, self.convs, self.bns, self.after_conv1, self.after_conv2, self.after_conv3)

    def forward(self, x: Tensor, shortcut: Tensor | None = None, *, spend: bool = False) -> Tensor:
        """As :class:`Bottle2neck`; ``spend`` says that nobody else needs ``x``, so that it may be overwritten."""
        folded = None if self._drops else self.folded(x, shortcut)
        if folded is None:
            return self._train_as_one(x, shortcut) if self._trains_as_one(x) else super().forward(x, shortcut)
        conv1, *convs, conv3 = folded
        x = x.contiguous(memory_format=CHANNELS_LAST)
        out = self._fast_scales(conv1(x, relu=True), convs)
        # Only what nobody else can hold may be overwritten.
        made = spend or not isinstance(self.downsample, nn.Identity)
        own = shortcut is None and made and not _is_heard(self.downsample)
        shortcut = self.downsample(x) if shortcut is None else shortcut
        if isinstance(self.se, nn.Identity) and not is_hooked(self.se):
            return conv3.add(out, shortcut, overwrite=own)
        return self.relu(self.se(conv3(out, relu=False)) + shortcut)

    @property
    def _drops(self) -> bool:
        return self.drop_path.training and not isinstance(self.drop_path, nn.Identity)

    def _trains_as_one(self, x: Tensor) -> bool:
        """Whether the block may be one step of the autograd graph: on the CPU, nothing in between, norms of a kind."""
        if not torch.is_grad_enabled() or self.with_cp or self._drops or not runs_eagerly(x):
            return False
        if not self._takes_gradients((x,)) or x.dim() != 4 or x.numel() == 0 or not isinstance(self.se, nn.Identity):
            return False
        links = self.links()
        if any(tensor.dtype != x.dtype for link in links for tensor in link.tensors()):
            return False
        if any(is_watched(module) for module in (self.se, self.pool, *self.others())):
            return False
        return all(is_frozen(link) for link in links) or all(is_live(link) for link in links)

    def _train_as_one(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        shortcut = self.downsample(x) if shortcut is None else shortcut
        pool = (self.pool.stride, self.pool.padding) if isinstance(self.pool, nn.AvgPool2d) else None
        links = self.links()
        plan = Plan(tuple(Geometry.of(link) for link in links), self.width, self.is_first, pool)  # type: ignore[arg-type]
        if is_live(links[0]):
            return LiveNormBlock.apply(plan, [link.norm for link in links], x, shortcut, *live_parameters(links))
        return FrozenNormBlock.apply(plan, x, shortcut, *folded_pairs(links))

    def _fast_scales(self, x: Tensor, convs: Sequence[FoldedConv]) -> Tensor:
        """Do what ``_multi_scale`` does; where splits feed each other, the results take the place of the input."""
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


class FastStage(Fast, nn.Sequential):
    """Blocks in turn: each may overwrite what the one before has made, unless somebody listens."""

    def links(self) -> list[Link]:
        return []

    def is_eligible(self) -> bool:
        return len(self) > 0 and all(isinstance(block, FastBottle2neck) for block in self)

    def forward(self, x: Tensor) -> Tensor:
        made = False
        for block in self:
            x = block(x, spend=made and not is_hooked(block))
            made = not is_hooked(block)
        return x


class FastBottleneck(Fast, Bottleneck):
    """The block of DLA-60 and DLA-X-60."""

    def links(self) -> list[Link]:
        pairs = ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3))
        return [Link(conv, norm) for conv, norm in pairs]  # type: ignore[arg-type]

    def others(self) -> Iterable[nn.Module]:
        return (self.relu,)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        folded = self.folded(x, shortcut)
        if folded is None:
            return super().forward(x, shortcut)
        conv1, conv2, conv3 = folded
        out = conv2(conv1(x.contiguous(memory_format=CHANNELS_LAST), relu=True), relu=True)
        return conv3.add(out, shortcut, overwrite=False)


class FastRoot(Fast, Root):
    """The aggregation node of DLA."""

    def links(self) -> list[Link]:
        return [Link(self.conv, self.bn)]  # type: ignore[arg-type]

    def others(self) -> Iterable[nn.Module]:
        return (self.relu,)

    def forward(self, children: list[Tensor]) -> Tensor:
        folded = self.folded(*children)
        if folded is None:
            return super().forward(children)
        return folded[0](torch.cat(children, 1), relu=True)


class FastChain(Fast, nn.Sequential):
    """Modules in turn: each convolution takes the norm and the ReLU behind it along."""

    def links(self) -> list[Link]:
        return [link for link, _, _ in steps_of(list(self)) if link is not None]

    def is_eligible(self) -> bool:
        return bool(self.links()) and super().is_eligible()

    def others(self) -> Iterable[nn.Module]:
        return (module for module in self if isinstance(module, nn.ReLU))

    def forward(self, x: Tensor) -> Tensor:
        folded = self.folded(x)
        return super().forward(x) if folded is None else run_steps(steps_of(list(self)), folded, x)


class FastRes2Net(Fast, Res2Net):
    """The backbone: its stem is fast, and images go in channels last, in which all that follows stays."""

    def links(self) -> list[Link]:
        return [link for link, _, _ in steps_of(self._stem_parts()) if link is not None]

    def others(self) -> Iterable[nn.Module]:
        return (self.conv1, *(module for module in self._stem_parts() if isinstance(module, nn.ReLU)))

    def slots(self) -> list[tuple[dict[str, Any], str]]:
        inner = [(self.conv1._modules, name) for name in self.conv1._modules]
        return [*((self._modules, name) for name in ('conv1', 'bn1', 'relu')), *inner]

    def _stem_parts(self) -> list[nn.Module]:
        first = list(self.conv1) if isinstance(self.conv1, nn.Sequential) else [self.conv1]
        return [*first, self.bn1, self.relu]

    def _takes_gradients(self, inputs: Iterable[Tensor | None]) -> bool:
        stem = (p for module in self.stem_modules() for p in module.parameters())
        return any(x is not None and x.requires_grad for x in inputs) or any(p.requires_grad for p in stem)

    def stem(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=CHANNELS_LAST)
        folded = self.folded(x)
        if folded is None:
            return super().stem(x)
        return self.maxpool(run_steps(steps_of(self._stem_parts()), folded, x))


class FastConvModule(Fast, ConvModule):
    """mmcv's convolution with norm and activation, as necks and heads are made of."""

    def links(self) -> list[Link]:
        conv: Any = self.conv
        norm: Any = self.norm if self.with_norm else None
        return [Link(conv, norm)]

    def is_eligible(self) -> bool:
        usual = self.order == ('conv', 'norm', 'act') and not self.with_explicit_padding and not self.with_spectral_norm
        return usual and super().is_eligible()

    def others(self) -> Iterable[nn.Module]:
        return (self.activate,) if self.with_activation and isinstance(self.activate, nn.ReLU) else ()

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        folded = self.folded(x) if norm or not self.with_norm else None
        if folded is None:
            return super().forward(x, activate, norm)
        activation: Any = self.activate if activate and self.with_activation else None
        relu = isinstance(activation, nn.ReLU)
        out = folded[0](x.contiguous(memory_format=CHANNELS_LAST), relu=relu)
        return out if relu or activation is None else activation(out)


def _is_heard(module: nn.Module) -> bool:
    return any(is_hooked(part) for part in module.modules())


def steps_of(modules: Sequence[nn.Module]) -> list[Step]:
    """Return ``modules`` as steps (link, other module, with ReLU); a step has either a link or another module."""
    steps: list[Step] = []
    rest = list(modules)
    while rest:
        module = rest.pop(0)
        if not isinstance(module, nn.Conv2d):
            steps.append((None, module, False))
            continue
        norm: Any = rest.pop(0) if rest and isinstance(rest[0], _BatchNorm) else None
        relu = bool(rest) and isinstance(rest[0], nn.ReLU)
        rest = rest[1:] if relu else rest
        steps.append((Link(module, norm), None, relu))
    return steps


def run_steps(steps: Sequence[Step], folded: Sequence[FoldedConv], x: Tensor) -> Tensor:
    """Run ``steps`` on ``x`` with the folded convolutions in the place of their links."""
    convs = iter(folded)
    x = x.contiguous(memory_format=CHANNELS_LAST)
    for _, module, relu in steps:
        x = next(convs)(x, relu=relu) if module is None else module(x)
    return x
