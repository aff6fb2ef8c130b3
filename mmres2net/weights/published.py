"""The weights that the official release publishes, one row per architecture, and the pixels that they want.

Addresses and hashes are those of the official code (https://github.com/Res2Net/Res2Net-PretrainedModels and, for
``res2net50_18w_6s``, https://github.com/Res2Net/Res2Net-maskrcnn); the figures are its README's, by the authors'
measurement. Nothing was trained or measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mmres2net.models.arch import ALIASES, find_arch

HOST = 'https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net'
LICENCE = 'CC BY-NC-SA 4.0: not for commercial use'
README = 'https://github.com/Res2Net/Res2Net-PretrainedModels#readme'
PLAIN = 'ImageNet-1k, 100 epochs'
LONG = 'ImageNet-1k, CutMix, about 300 epochs'


@dataclass(frozen=True)
class Pixels:
    """What a network expects of an image: RGB, 0 to 255, minus ``mean``, divided by ``std``."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True)
class Published:
    """Published weights of one architecture.

    Args:
        arch: The name in :data:`mmres2net.models.ARCHS`.
        sha256: The first digits of the file's hash; they also end its name.
        recipe: How the weights were trained, in a few words (the authors' answers in issues 38, 67 and 71).
        top1: Top-1 accuracy on ImageNet-1k in percent as ``source`` publishes it; None: not published.
        source: Where ``top1`` is from.
        licence: The licence, with what it means.
    """

    arch: str
    sha256: str
    recipe: str = PLAIN
    top1: float | None = None
    source: str | None = README
    licence: str = LICENCE

    @property
    def url(self) -> str:
        """The address of the file."""
        return f'{HOST}/{self.arch}-{self.sha256}.pth'


_ROWS = (
    Published('res2net50_26w_4s', '06e79181', top1=77.99),
    Published('res2net50_48w_2s', 'afed724a', top1=77.32),
    Published('res2net50_14w_8s', '6527dddc', top1=78.14),
    Published('res2net50_26w_6s', '19041792', top1=78.58),
    Published('res2net50_26w_8s', '2c7c9f12', top1=79.20),
    Published('res2net50_18w_6s', 'db17faaa', source=None),
    Published('res2net101_26w_4s', '02a759a1', top1=79.19),
    Published('res2net50_v1b_26w_4s', '3cf99910', LONG, top1=80.27),
    Published('res2net101_v1b_26w_4s', '0812c246', LONG, top1=81.23),
    Published('res2next50_4s', '6ef7e7bf', top1=78.24),
    Published('res2net_dla60_4s', 'd88db7f9', top1=78.47),
    Published('res2next_dla60_4s', 'd327927b', top1=78.45),
)
PUBLISHED: Mapping[str, Published] = MappingProxyType({row.arch: row for row in _ROWS})


def find_published(arch: str) -> Published | None:
    """Return the published weights of ``arch``, an official name or timm's alias; None where there are none.

    Raises:
        ValueError: No such architecture.
    """
    find_arch(arch)
    return PUBLISHED.get(ALIASES.get(arch, arch))


def pixels_of(arch: str) -> Pixels | None:
    """Return the pixels that ``arch`` is fed with; None for the CIFAR networks, which take their data set's own.

    Networks without published weights get the same as the others of the release, so that they can be compared.

    Raises:
        ValueError: No such architecture.
    """
    return None if find_arch(arch).family == 'cifar' else IMAGENET
