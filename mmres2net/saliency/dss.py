"""DSS: deeply supervised salient object detection with short connections (Hou et al., CVPR 2017 and TPAMI 2019).

The Res2Net paper trains it on ResNet-50 and Res2Net-50 (section 4.9, table 9) without any details. Published are the
network on VGG-16 with six side outputs, and one on ResNet-101 with five, from conv1 and the four stages, the last at
stride 16 with dilation 2. This is the network on VGG-16 without its first side, because no feature of a ResNet has the
size of the image; the other sides are matched by stride:

    VGG-16      2         3         4         5         6         (strides 2, 4, 8, 16, 32)
    here        1 stem    2 stage 1 3 stage 2 4 stage 3 5 stage 4 (strides 2, 4, 8, 16, 16)
    convolution 128 @ 3x3 256 @ 5x5 256 @ 5x5 512 @ 5x5 512 @ 7x7 (two of them, then one 1x1 to the side's map)
    takes       2 3 4 5   4 5       4 5                           (maps of deeper sides: the short connections)

The sides, the dilation and the fusion, a weighted sum with initial weights of 0.2, are those of the published
ResNet-101 network. The channels, kernels and connections of the paper's ResNet-50 are not known. The published code
upsamples the map of its deepest side 32 times although it has stride 16; here each map is upsampled by its stride.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.registry import MODELS

# The sides, counted from 0, whose maps each side takes.
CONNECTIONS = ((1, 2, 3, 4), (3, 4), (3, 4), (), ())
SIDES = len(CONNECTIONS)
AVERAGED = (1, 2, 3)  # sides 3, 4, 5 on VGG-16
SMALLEST = 1e-6  # probability whose logit is finite


@MODELS.register_module()
class WithStem(BaseModule):
    """A backbone that returns the output of its stem, followed by those of its stages.

    The output of the stem is the input of the module ``maxpool``, which the ResNets of mmdet, mmseg and mmpretrain and
    :class:`mmres2net.models.Res2Net` have; a UserError says that ``backbone``, a config, has none. Weights, names,
    norms and freezing are those of the backbone.
    """

    def __init__(self, backbone: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = MODELS.build(copy.deepcopy(backbone))  # some libraries modify the config
        if not isinstance(getattr(self.backbone, 'maxpool', None), nn.Module):
            what = f'{type(self.backbone).__name__} has no module `maxpool`, which mmres2net.WithStem needs'
            raise UserError(f'{what}; use a ResNet or mmres2net.Res2Net')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return for ``x`` (N, 3, H, W) the stem's output, (N, 64, H/2, W/2), then those of the stages."""
        seen: list[Tensor] = []
        handle = self.backbone.maxpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            stages = self.backbone(x)
        finally:
            handle.remove()
        return (*seen, *stages)


@MODELS.register_module()
class DSSHead(BaseModule):
    """The sides of DSS, their short connections and their fusion, as decode head of mmseg's ``EncoderDecoder``.

    The features are those of :class:`mmres2net.saliency.WithStem`: of the stem and of four stages. All maps are logits
    of one channel. mmseg resizes a prediction to the size of the image file and applies the sigmoid: ``seg_logits`` of
    the result are probabilities (1, H, W). They are the mean of four, those of the fused map and of sides 3, 4 and 5 on
    VGG-16, as in the published code (which then rescales the map of each image to 0..1; here the metric does that).

    Args:
        in_channels: Channels of the five features.
        channels: Channels of the two convolutions of each side.
        kernel_sizes: Their kernel sizes, odd.
        strides: Strides of the features.
        threshold: Probability from which a pixel of ``pred_sem_seg`` is salient.
        ignore_index: Label of pixels without loss, such as padding.

    A ValueError says that an argument has not five values, or a value that is not allowed.
    """

    # For mmseg: one channel for two classes, and maps are resized as cv2 resizes images.
    num_classes = 2
    out_channels = 1
    align_corners = False

    def __init__(
        self, *, in_channels: Sequence[int] = (64, 256, 512, 1024, 2048),
        channels: Sequence[int] = (128, 256, 256, 512, 512), kernel_sizes: Sequence[int] = (3, 5, 5, 5, 7),
        strides: Sequence[int] = (2, 4, 8, 16, 16), threshold: float = 0.5, ignore_index: int = 255,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = dict(in_channels=in_channels, channels=channels, kernel_sizes=kernel_sizes, strides=strides)
        for name, values in shape.items():
            if len(values) != SIDES:
                raise ValueError(f'{name}={tuple(values)}: give {SIDES} values, one for the stem and one per stage')
        if any(size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f'kernel_sizes={tuple(kernel_sizes)}: all must be odd; even ones would shift the maps')
        if any(deep % shallow for shallow, deep in pairwise(strides)):
            raise ValueError(f'strides={tuple(strides)}: each must be a multiple of the one before')
        self.strides, self.threshold, self.ignore_index = tuple(strides), threshold, ignore_index
        self.sides = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, width, size, padding=size // 2),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, size, padding=size // 2),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, 1, 1),
            )
            for inputs, width, size in zip(in_channels, channels, kernel_sizes, strict=True)
        )
        self.merges = nn.ModuleList(nn.Conv2d(1 + len(deep), 1, 1) if deep else nn.Identity() for deep in CONNECTIONS)
        self.fusion = nn.Conv2d(SIDES, 1, 1)

    def init_weights(self) -> None:
        """Initialize the convolutions; the weights of sums of maps start equal, as in the published code."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for side in self.sides:
            nn.init.normal_(side[-1].weight, std=0.01)  # type: ignore[index]
        for mixed in (*self.merges, self.fusion):
            if isinstance(mixed, nn.Conv2d):
                nn.init.constant_(mixed.weight, 1 / mixed.in_channels)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the logits (N, 1, H, W) of the prediction, of the image's size if that is even, for `maps`' inputs."""
        height, width = inputs[0].shape[2:]
        return self.predicted(self.maps(inputs, (height * self.strides[0], width * self.strides[0])))

    def maps(self, inputs: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
        """Return the logits (N, 1, H, W) of the five sides, the stem's first, and of their fusion.

        ``inputs`` are features (N, C_i, ceil(H / s_i), ceil(W / s_i)), ``size`` is the image's (H, W). A ValueError
        says that they are not five, or have other sizes.
        """
        if len(inputs) != SIDES:
            what = f'{len(inputs)} features for {SIDES} sides'
            raise ValueError(f'{what}; use mmres2net.WithStem around a backbone with four stages')
        maps = [side(feature) for side, feature in zip(self.sides, inputs, strict=True)]
        for i in reversed(range(SIDES)):
            deeper = [upsample(maps[j], self.strides[j] // self.strides[i], maps[i].shape[2:]) for j in CONNECTIONS[i]]
            maps[i] = self.merges[i](torch.cat([*deeper, maps[i]], 1))
        maps = [upsample(one, stride, size) for one, stride in zip(maps, self.strides, strict=True)]
        return [*maps, self.fusion(torch.cat(maps, 1))]

    def predicted(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits (N, 1, H, W) of the prediction, for the six maps of :meth:`maps`."""
        # In half precision, probabilities near 1 are rounded to 1, whose logit is infinite.
        mean = torch.stack([maps[i].float().sigmoid() for i in (*AVERAGED, -1)]).mean(0)
        return torch.logit(mean, eps=SMALLEST)

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: Sequence[Any], train_cfg: Any) -> dict[str, Tensor]:
        """Return the cross entropy of each side's map and of the fused map, each averaged over the labelled pixels.

        ``inputs`` are those of :meth:`maps`; each sample has ``gt_sem_seg.data`` (1, H, W), where 1 is salient. Labels
        other than 0, 1 and ``ignore_index`` are a UserError.
        """
        labels = torch.stack([sample.gt_sem_seg.data for sample in batch_data_samples])
        counted = labels != self.ignore_index
        if int((labels * counted).max()) > 1:
            what = f'masks have labels {sorted(labels.unique().tolist())}, not only 0, 1 and {self.ignore_index}'
            raise UserError(f'{what} (ignored); load them with mmres2net.LoadSaliencyMask')
        losses: dict[str, Tensor] = {}
        for i, logits in enumerate(self.maps(inputs, labels.shape[2:])):
            each = F.binary_cross_entropy_with_logits(logits, (labels == 1).to(logits.dtype), reduction='none')
            name = f'loss_side{i + 1}' if i < SIDES else 'loss_fused'
            losses[name] = (each * counted).sum() / counted.sum().clamp(min=1)
        return losses

    def predict(self, inputs: Sequence[Tensor], batch_img_metas: Sequence[dict[str, Any]], test_cfg: Any) -> Tensor:
        """Return logits (N, 1, H, W) of the size of the network's input; ``inputs`` are those of :meth:`maps`."""
        meta = batch_img_metas[0]
        # mmseg's sliding window replaces the size of the image by that of the window, as torch.Size.
        window = isinstance(meta['img_shape'], torch.Size)
        size = meta['img_shape'] if window else meta.get('pad_shape', meta['img_shape'])
        return self.predicted(self.maps(inputs, size[:2]))


def upsample(x: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """Return ``x`` (N, C, ceil(H / factor), ceil(W / factor)), upsampled bilinearly to ``size`` (H, W).

    Value k of ``x`` goes to pixel ``k * factor``, the centre of its receptive field in the backbone; beyond the last
    value, it is repeated. Resizing without aligned corners would shift the map by half a stride, resizing with them by
    the remainder of the size. A ValueError says that ``x`` has another size.
    """
    last = [(n - 1) * factor for n in x.shape[2:]]
    beyond = [total - 1 - pixel for total, pixel in zip(size, last, strict=True)]
    if not all(0 <= n < factor for n in beyond):
        what = f'a map of size {tuple(x.shape[2:])} does not fit {tuple(size)} pixels at stride {factor}'
        raise ValueError(f'{what}; set `strides` of mmres2net.DSSHead to those of the backbone')
    if factor == 1:
        return x
    x = F.interpolate(x, size=[n + 1 for n in last], mode='bilinear', align_corners=True)
    return F.pad(x, (0, beyond[1], 0, beyond[0]), mode='replicate')
