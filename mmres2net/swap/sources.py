"""The backbones that can be swapped: the ResNets of mmdet, mmseg and mmpretrain, and our own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config, ConfigDict

from mmres2net.errors import UserError

Cfg = dict[str, Any]
TYPES = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt', 'SEResNet', 'SEResNeXt', 'ResNeSt', 'Res2Net')
CIFAR = 'ResNet_CIFAR'
OURS = ('Res2Net', 'Res2NetDLA')
WRAPPER = 'WithStem'  # ours: returns the outputs of its own `backbone`, and of the stem
# Options of the libraries' ResNets that differ from ours by default.
DEFAULTS: dict[str, Cfg] = {
    'mmdet': {'out_indices': (0, 1, 2, 3), 'norm_eval': True, 'zero_init_residual': True},
    'mmseg': {'out_indices': (0, 1, 2, 3), 'norm_eval': False, 'zero_init_residual': True},
    'mmpretrain': {'out_indices': (3,), 'norm_eval': False, 'zero_init_residual': True},
}


@dataclass(frozen=True)
class Source:
    """A backbone that is to be swapped."""

    path: str  # in the config, such as `model.backbone`
    parents: tuple[Cfg, ...]  # the dicts that hold it, outermost first
    scope: str  # the registry scope there: the library that builds what is nested in it
    library: str  # the package of its type
    name: str  # its type without the package
    options: Cfg  # without `type`

    @property
    def is_ours(self) -> bool:
        """Whether it is a backbone of this package."""
        return self.library == 'mmres2net'

    @property
    def is_cifar(self) -> bool:
        """Whether it has the stem for images of 32 pixels."""
        return self.name == CIFAR

    @property
    def title(self) -> str:
        """Its type and size, for messages."""
        depth = self.options.get('depth')
        return f'{self.library}.{self.name}' + (f' of depth {depth}' if depth else '')

    def __str__(self) -> str:
        return f'{self.path} ({self.title})'

    def channels(self) -> tuple[int, ...]:
        """Return the channels of its four stages."""
        base = self.options.get('base_channels') or 64
        expansion = self.options.get('expansion') or (1 if self.options.get('depth') in (18, 34) else 4)
        return tuple(base * expansion * 2**i for i in range(4))

    def replace(self, new: Cfg) -> None:
        """Put ``new`` into the config in its place."""
        self.parents[-1]['backbone'] = ConfigDict(new)


def find_source(cfg: Config) -> Source:
    """Return the backbone of ``cfg``; a UserError if there is none, there are several, or it cannot be swapped."""
    found = list(_walk(cfg.get('model') or {}, 'model', (), cfg.get('default_scope') or ''))
    if not found:
        raise UserError("this config has no network under a key 'backbone' in its model, so there is nothing to swap")
    if len(found) > 1:
        paths = ' and '.join(path for path, _, _ in found)
        text = f'this config combines models that were trained separately ({paths})'
        raise UserError(f'{text}; swap the backbone in the configs that they are trained with')
    path, parents, scope = found[0]
    backbone = parents[-1]['backbone']
    kind = backbone.get('type')
    if kind is None:
        raise UserError(f'{path} has no type, so the swap cannot know what network it is')
    library, name = type_library(kind) or scope, type_name(kind)
    known = OURS if library == 'mmres2net' else (*TYPES, CIFAR) if library in DEFAULTS else ()
    if name not in known:
        raise UserError(
            f'{path} is {f"{library}." if library else ""}{name}, not a ResNet of {", ".join(DEFAULTS)}: a Res2Net has '
            f'no counterpart of its options. Start from a config of the same model with one of {", ".join(TYPES)}'
        )
    options = {key: value for key, value in backbone.items() if key not in ('type', '_scope_')}
    return Source(path, parents, scope, library, name, options)


def _walk(node: Any, path: str, parents: tuple[Cfg, ...], scope: str) -> Iterator[tuple[str, tuple[Cfg, ...], str]]:
    """Yield path, holding dicts and registry scope of every backbone below ``node``."""
    if isinstance(node, dict):
        scope, parents = node.get('_scope_', scope), (*parents, node)
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        if not isinstance(value, dict) or 'backbone' not in str(key) or type_name(value.get('type')) == WRAPPER:
            yield from _walk(value, f'{path}.{key}', parents, scope)
        elif key == 'backbone':
            yield f'{path}.backbone', parents, value.get('_scope_', scope)
        else:
            what = f'{path}.{key} is a second network, which has to fit the first'
            raise UserError(f"{what}; the swap knows only networks under the key 'backbone'")


def type_name(kind: Any) -> str:
    """Return the name of a ``type`` in a config, which is a name, a name with its package, or a class."""
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def type_library(kind: Any) -> str:
    """Return the package of a ``type`` in a config; empty if it says none."""
    module = kind.__module__ if isinstance(kind, type) else str(kind).rpartition('.')[0]
    return module.partition('.')[0]
