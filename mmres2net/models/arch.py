"""The table of architectures: the networks of the paper, and those of its official release.

Names are those of the official release; timm's names of the same networks are aliases. ``26w_4s`` is a base width of 26
channels for each split, and 4 splits (scales), as in table 3.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Family = Literal['res2net', 'cifar', 'dla']


@dataclass(frozen=True)
class Arch:
    """The numbers that define a network.

    Families: ``res2net`` (224-pixel stem, four stages), ``cifar`` (32-pixel stem, three stages whose first blocks are
    plain ResNeXt blocks) and ``dla`` (deep layer aggregation).
    """

    depths: tuple[int, ...]  # number of blocks of each stage (DLA family: levels of the tree)
    base_width: int = 26  # channels of one split in the first stage, which has 64 planes
    scales: int = 4  # number of splits s; 1 is a plain bottleneck
    cardinality: int = 1  # groups c of each 3x3 convolution (section 3.2.1)
    deep_stem: bool = False  # three 3x3 convolutions instead of one 7x7 (v1b)
    avg_down: bool = False  # average pooling before the 1x1 convolution of the shortcut (v1b)
    se_reduction: int | None = None  # of the squeeze-and-excitation after the last norm; None: no SE
    family: Family = 'res2net'


_R50, _R101, _R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_DLA60 = (1, 2, 3, 1)


def _v1b(depths: tuple[int, ...]) -> Arch:
    return Arch(depths, deep_stem=True, avg_down=True)


def _cifar(base_width: int, scales: int, cardinality: int, se_reduction: int | None = None) -> Arch:
    return Arch((3, 3, 3), base_width, scales, cardinality, se_reduction=se_reduction, family='cifar')


ARCHS: Mapping[str, Arch] = MappingProxyType(
    {
        # Tables 1 to 3
        'res2net50_48w_2s': Arch(_R50, 48, 2),
        'res2net50_26w_4s': Arch(_R50, 26, 4),
        'res2net50_14w_8s': Arch(_R50, 14, 8),
        'res2net50_26w_6s': Arch(_R50, 26, 6),
        'res2net50_26w_8s': Arch(_R50, 26, 8),
        'res2net50_18w_4s': Arch(_R50, 18, 4),
        'res2net50_18w_6s': Arch(_R50, 18, 6),
        'res2net101_26w_4s': Arch(_R101),
        'res2net152_26w_4s': Arch(_R152),
        'res2next50_4s': Arch(_R50, 4, 4, 8),
        'se_res2net50_26w_4s': Arch(_R50, se_reduction=16),
        # The official release's second version, not in the paper
        'res2net50_v1b_26w_4s': _v1b(_R50),
        'res2net101_v1b_26w_4s': _v1b(_R101),
        'res2net152_v1b_26w_4s': _v1b(_R152),
        # Table 1, deep layer aggregation
        'dla60': Arch(_DLA60, 64, 1, family='dla'),
        'dla60x': Arch(_DLA60, 4, 1, 32, family='dla'),
        'res2net_dla60_4s': Arch(_DLA60, 28, 4, family='dla'),
        'res2next_dla60_4s': Arch(_DLA60, 4, 4, 8, family='dla'),
        # Table 4, CIFAR-100. The paper does not give the SE reduction: 32 and 8 reproduce its parameter counts
        # (35.1M, 34.0M, 36.9M) with SE in all but the first block of a stage; none reproduces 26.0M of 6c24w4s-SE.
        'resnext29_8c64w': _cifar(64, 1, 8),
        'resnext29_16c64w': _cifar(64, 1, 16),
        'res2next29_6c24w4s': _cifar(24, 4, 6),
        'res2next29_8c25w4s': _cifar(25, 4, 8),
        'res2next29_6c24w6s': _cifar(24, 6, 6),
        'se_resnext29_8c64w': _cifar(64, 1, 8, 8),
        'se_res2next29_6c24w4s': _cifar(24, 4, 6, 32),
        'se_res2next29_8c25w4s': _cifar(25, 4, 8, 32),
        'se_res2next29_6c24w6s': _cifar(24, 6, 6, 32),
    }
)

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        # The official release's shorter names
        'res2net50': 'res2net50_26w_4s',
        'res2net101': 'res2net101_26w_4s',
        'res2net50_v1b': 'res2net50_v1b_26w_4s',
        'res2net101_v1b': 'res2net101_v1b_26w_4s',
        'res2net152_v1b': 'res2net152_v1b_26w_4s',
        'res2net_dla60': 'res2net_dla60_4s',
        'res2next_dla60': 'res2next_dla60_4s',
        # The official release and timm
        'res2next50': 'res2next50_4s',
        # timm
        'res2net50d': 'res2net50_v1b_26w_4s',
        'res2net101d': 'res2net101_v1b_26w_4s',
        'dla60_res2net': 'res2net_dla60_4s',
        'dla60_res2next': 'res2next_dla60_4s',
    }
)


def find_arch(name: str) -> Arch:
    """Return the architecture of a name, an official one or timm's; a ValueError lists similar names, or all."""
    arch = ARCHS.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if arch is None:
        near = difflib.get_close_matches(str(name), [*ARCHS, *ALIASES], n=5, cutoff=0.7)
        hint = f'did you mean {", ".join(near)}?' if near else f'choose from {", ".join(ARCHS)}.'
        raise ValueError(f'unknown arch {name!r}: {hint}')
    return arch
