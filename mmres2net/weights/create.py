"""``mmres2net.create_model``: the networks in plain PyTorch, as classifiers or as features, with published weights."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.init_cfg import quiet_initialization
from mmres2net.models import ALIASES, Res2Net, Res2NetDLA, find_arch
from mmres2net.weights.fetching import Normalization, fetch_checkpoint, normalization_of, normalization_of_checkpoint
from mmres2net.weights.loading import Pretrained
from mmres2net.weights.reading import read_checkpoint, unwrap

CLASSES = 1000  # of ImageNet-1k, on which the published weights were trained


def create_model(
    arch: str,
    *,
    pretrained: bool | str = False,
    num_classes: int = CLASSES,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    output_stride: int | None = None,
    in_channels: int = 3,
) -> 'Classifier | Features':
    """Return a network as a module of plain PyTorch, in training mode as torch's own are.

    Args:
        arch: A name of :data:`mmres2net.models.ARCHS`, or timm's name of the same network.
        pretrained: True: published weights; a text: a file, a URL or ``timm://NAME``; False: random weights. A
            classifier of other classes stays random.
        num_classes: Classes of the classifier; 0: none, the output is the mean of the last features.
        features_only: Return maps of features instead of class scores.
        out_indices: Stages whose maps are returned, of 0 to 3; None: all.
        output_stride: 8 or 16: later stages are dilated instead of strided.
        in_channels: Channels of the image; published weights are adapted.

    A ValueError says that an argument is not allowed, or that weights are missing or do not fit.
    """
    if num_classes < 0:
        raise ValueError(f'num_classes={num_classes}: choose 0 or more')
    if out_indices is not None and not features_only:
        raise ValueError('out_indices is for features_only=True: a classifier has one output')
    stride: dict[str, Any] = {} if output_stride is None else {'output_stride': output_stride}
    kind: type[Res2Net | Res2NetDLA] = Res2NetDLA if find_arch(arch).family == 'dla' else Res2Net
    backbone = kind(arch, out_indices=out_indices, in_channels=in_channels, **stride)
    name = ALIASES.get(arch, arch) if pretrained is True else pretrained or ''
    with quiet_initialization():
        Pretrained(name)(backbone) if name else backbone.init_weights()
    normalization = (normalization_of_checkpoint(name) if name else None) or normalization_of(arch)
    if features_only:
        return Features(backbone, normalization)
    model = Classifier(backbone, num_classes, normalization)
    state = unwrap(read_checkpoint(fetch_checkpoint(name))) if name and num_classes else {}
    weight, bias = state.get('fc.weight'), state.get('fc.bias')
    if weight is not None and bias is not None and len(bias) == num_classes:
        weight = weight.flatten(1)  # of a DLA it is a 1x1 convolution
        if weight.shape[1] != backbone.out_channels[-1]:
            raise UserError(f'weights {name!r}: their classifier takes {weight.shape[1]} features, not those of {arch}')
        model.fc.load_state_dict({'weight': weight, 'bias': bias})
    return model


class Features(nn.Module):
    """A backbone whose output is a list of maps; ``normalization`` is for RGB of 0 to 255, None: that of the data."""

    def __init__(self, backbone: Res2Net | Res2NetDLA, normalization: Normalization | None) -> None:
        super().__init__()
        self.backbone, self.normalization = backbone, normalization
        self.channels, self.strides = tuple(backbone.out_channels), tuple(backbone.out_strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps (N, C_i, H / s_i, W / s_i) for normalized images ``x`` (N, 3, H, W)."""
        return list(self.backbone(x))


class Classifier(nn.Module):
    """A backbone, the mean of its last map, and a linear layer (none for ``num_classes`` 0)."""

    def __init__(self, backbone: Res2Net | Res2NetDLA, num_classes: int, normalization: Normalization | None) -> None:
        super().__init__()
        self.backbone, self.normalization = backbone, normalization
        self.fc: nn.Module = nn.Linear(backbone.out_channels[-1], num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes), or features (N, C), for normalized images ``x`` (N, 3, H, W)."""
        return self.fc(self.backbone(x)[-1].mean((2, 3)))
