"""DSS: deeply supervised salient object detection with short connections (Hou et al., CVPR 2017 and TPAMI 2019).

The paper of Res2Net trains it on ResNet-50 and Res2Net-50 (section 4.9, table 9) and states no detail of it. Public are
the network on VGG-16 with six side outputs and one on ResNet-101 with five, from conv1 and the four stages, the last at
stride 16 with dilation 2. This is the form on VGG-16 without its first side, since no feature of a ResNet has as many
pixels as the image; the others are matched by stride, so that

    VGG-16      2         3         4         5         6         (strides 2, 4, 8, 16, 32)
    here        1 stem    2 stage 1 3 stage 2 4 stage 3 5 stage 4 (strides 2, 4, 8, 16, 16)
    convolution 128 @ 3x3 256 @ 5x5 256 @ 5x5 512 @ 5x5 512 @ 7x7 (two of them, then one 1x1 to the side's map)
    takes       2 3 4 5   4 5       4 5                           (maps of deeper sides: the short connections)

The sides, the dilation and the fusion, a weighted sum that starts at 0.2 each, are those of the public ResNet-101 form.
Which channels, kernels and connections the paper's ResNet-50 had is not known. The public form enlarges the map of its
deepest side 32 times although that has stride 16, which no other side does; here each map is enlarged by its stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.registry import MODELS

Inference = Literal['public', 'paper', 'fused']
# From which sides, counted from 0, each takes maps.
CONNECTIONS = ((1, 2, 3, 4), (3, 4), (3, 4), (), ())
SIDES = len(CONNECTIONS)
AVERAGED = (1, 2, 3)  # sides 3, 4, 5 on VGG-16
WEIGHED = (0, 1, 2)  # sides 2, 3, 4 on VGG-16
SMALLEST = 1e-6  # probability: its logit is still a number


@MODELS.register_module()
class DSSHead(BaseModule):
    """The sides of DSS, their short connections and their fusion, as decode head of mmseg's ``EncoderDecoder``.

    The features are those of :class:`mmres2net.saliency.WithStem`: of the stem and of four stages. All maps are logits
    of one channel. Where the head is asked for a prediction, mmseg brings it to the size of the image file and takes
    the sigmoid: ``seg_logits`` of the result are probabilities (1, H, W).

    Args:
        in_channels: Channels of the five features.
        channels: Channels of the two convolutions of each side.
        kernel_sizes: Their kernels, odd.
        strides: Strides of the features against the image.
        inference: What is predicted. ``public``: the mean of four probabilities, those of the fused map and of the
            sides 3, 4 and 5 on VGG-16, as the published code has it (which then stretches each image's map to 0..1;
            that is left to the metric). ``paper``: the sum of the sides 2, 3 and 4 on VGG-16 with their weights in the
            fusion, as other implementations quote the paper's equation. ``fused``: the fused map as it is trained.
        threshold: Probability from which a pixel of ``pred_sem_seg`` is salient.
        ignore_index: Pixels annotated so do not count in the loss: where images were padded.

    Raises:
        ValueError: Not five values, an even kernel, strides that are no multiples of each other, or an unknown
            ``inference``.
    """

    # What mmseg reads: one channel stands for two classes, and maps are resized as cv2 resizes images.
    num_classes = 2
    out_channels = 1
    align_corners = False

    def __init__(
        self,
        *,
        in_channels: Sequence[int] = (64, 256, 512, 1024, 2048),
        channels: Sequence[int] = (128, 256, 256, 512, 512),
        kernel_sizes: Sequence[int] = (3, 5, 5, 5, 7),
        strides: Sequence[int] = (2, 4, 8, 16, 16),
        inference: Inference = 'public',
        threshold: float = 0.5,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        _check_options(in_channels, channels, kernel_sizes, strides, inference)
        self.strides, self.inference = tuple(strides), inference
        self.threshold, self.ignore_index = threshold, ignore_index
        shapes = zip(in_channels, channels, kernel_sizes, strict=True)
        self.sides = nn.ModuleList(_side(*shape) for shape in shapes)
        self.merges = nn.ModuleList(
            nn.Conv2d(1 + len(deeper), 1, 1) if deeper else nn.Identity() for deeper in CONNECTIONS
        )
        self.fusion = nn.Conv2d(SIDES, 1, 1)

    def init_weights(self) -> None:
        """Draw the convolutions; sums of maps start as means, the fusion at 0.2 each as in the public form."""
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
        """Return the logits (N, 1, H, W) of what is predicted, at the image's size if that is even.

        Args:
            inputs: Features (N, C_i, ceil(H / s_i), ceil(W / s_i)).
        """
        height, width = inputs[0].shape[2:]
        return self.predicted(self.maps(inputs, (height * self.strides[0], width * self.strides[0])))

    def maps(self, inputs: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
        """Return the logits (N, 1, H, W) of the five sides, the stem's first, and of their fusion.

        Args:
            inputs: Features (N, C_i, ceil(H / s_i), ceil(W / s_i)).
            size: The image's (H, W).

        Raises:
            ValueError: Not five features, or features of other sizes.
        """
        if len(inputs) != SIDES:
            raise ValueError(
                f'{len(inputs)} features for {SIDES} sides; wrap the backbone in mmres2net.WithStem, with four stages'
            )
        maps = [side(feature) for side, feature in zip(self.sides, inputs, strict=True)]
        for i in reversed(range(SIDES)):
            deeper = [enlarged(maps[j], self.strides[j] // self.strides[i], maps[i].shape[2:]) for j in CONNECTIONS[i]]
            maps[i] = self.merges[i](torch.cat([*deeper, maps[i]], 1))
        maps = [enlarged(one, stride, size) for one, stride in zip(maps, self.strides, strict=True)]
        return [*maps, self.fusion(torch.cat(maps, 1))]

    def predicted(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits (N, 1, H, W) that ``inference`` makes of the six of :meth:`maps`."""
        if self.inference == 'fused':
            return maps[-1]
        if self.inference == 'paper':
            weights = self.fusion.weight.flatten()
            return torch.stack([weights[i] * maps[i] for i in WEIGHED]).sum(0)
        # In half precision a probability next to 1 is 1, and its logit infinite.
        mean = torch.stack([maps[i].float().sigmoid() for i in (*AVERAGED, -1)]).mean(0)
        return torch.logit(mean, eps=SMALLEST)

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: Sequence[Any], train_cfg: Any) -> dict[str, Tensor]:
        """Return the cross entropy of every side's map and of the fused one, each a mean over the pixels that count.

        Args:
            inputs: Features (N, C_i, ceil(H / s_i), ceil(W / s_i)).
            batch_data_samples: One sample an image with ``gt_sem_seg.data`` (1, H, W): 1 is salient.
            train_cfg: Not used; mmseg gives it to every head.

        Raises:
            UserError: Labels other than 0, 1 and ``ignore_index``.
        """
        labels = torch.stack([sample.gt_sem_seg.data for sample in batch_data_samples])
        counted = labels != self.ignore_index
        if int((labels * counted).max()) > 1:
            raise UserError(
                f'masks are labelled {sorted(labels.unique().tolist())}, but DSS knows 0, 1 and {self.ignore_index} '
                '(ignored); load them with mmres2net.LoadSaliencyMask'
            )
        maps = self.maps(inputs, labels.shape[2:])
        names = [*(f'loss_side{i + 1}' for i in range(SIDES)), 'loss_fused']
        return {name: mean_cross_entropy(one, labels, counted) for name, one in zip(names, maps, strict=True)}

    def predict(self, inputs: Sequence[Tensor], batch_img_metas: Sequence[dict[str, Any]], test_cfg: Any) -> Tensor:
        """Return the logits (N, 1, H, W) of what is predicted, at the size of the network's input.

        Args:
            inputs: Features (N, C_i, ceil(H / s_i), ceil(W / s_i)).
            batch_img_metas: mmseg's facts of each image; the first says what size the input has.
            test_cfg: Not used; mmseg gives it to every head.
        """
        meta = batch_img_metas[0]
        # mmseg's sliding window writes the window's size over the image's, as torch.Size.
        window = isinstance(meta['img_shape'], torch.Size)
        size = meta['img_shape'] if window else meta.get('pad_shape', meta['img_shape'])
        return self.predicted(self.maps(inputs, size[:2]))


def enlarged(x: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """Return ``x`` (N, C, h, w) enlarged bilinearly to ``size`` (H, W), with h = ceil(H / factor), and w so.

    Value k of ``x`` lands on pixel ``k * factor``: there sits the middle of the window that the backbone's convolutions
    see. Beyond the last value the edge goes on. Resizing with or without aligned corners would shift the map, by half a
    stride in the one case, by the part of a stride that the size leaves over in the other.

    Raises:
        ValueError: ``x`` has another size.
    """
    last = [(n - 1) * factor for n in x.shape[2:]]
    beyond = [total - 1 - pixel for total, pixel in zip(size, last, strict=True)]
    if not all(0 <= n < factor for n in beyond):
        raise ValueError(
            f'a map of {tuple(x.shape[2:])} cannot be that of {tuple(size)} pixels at stride {factor}; set `strides` '
            'of mmres2net.DSSHead to those of the backbone'
        )
    if factor == 1:
        return x
    x = F.interpolate(x, size=[n + 1 for n in last], mode='bilinear', align_corners=True)
    return F.pad(x, (0, beyond[1], 0, beyond[0]), mode='replicate')


def mean_cross_entropy(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """Return the mean binary cross entropy over the pixels that are ``counted``, 0 where none are.

    Args:
        logits: (N, 1, H, W).
        labels: (N, 1, H, W) of integers, 0 and 1 where they count.
        counted: (N, 1, H, W) of bool.
    """
    losses = F.binary_cross_entropy_with_logits(logits, (labels == 1).to(logits.dtype), reduction='none')
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def _side(in_channels: int, channels: int, kernel_size: int) -> nn.Sequential:
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size, padding=padding),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, kernel_size, padding=padding),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, 1, 1),
    )


def _check_options(
    in_channels: Sequence[int],
    channels: Sequence[int],
    kernel_sizes: Sequence[int],
    strides: Sequence[int],
    inference: str,
) -> None:
    named = {'in_channels': in_channels, 'channels': channels, 'kernel_sizes': kernel_sizes, 'strides': strides}
    for name, values in named.items():
        if len(values) != SIDES:
            raise ValueError(f'{name}={tuple(values)}: give {SIDES} values, one for the stem and one a stage')
    if any(size % 2 == 0 for size in kernel_sizes):
        raise ValueError(f'kernel_sizes={tuple(kernel_sizes)}: all have to be odd, or the maps would be shifted')
    if any(deep % shallow for shallow, deep in pairwise(strides)):
        raise ValueError(f'strides={tuple(strides)}: each has to be a multiple of the one before')
    if inference not in get_args(Inference):
        raise ValueError(f'inference={inference!r}: choose from {", ".join(get_args(Inference))}')
