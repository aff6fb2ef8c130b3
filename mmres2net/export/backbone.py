"""A backbone as a graph: raw pixels in, one feature map a stage out."""

from __future__ import annotations

from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.export.pixels import Pixels


class BackboneGraph(nn.Module):
    """Pixels and backbone.

    Args:
        pixels: What is done to the image.
        backbone: The network; it returns one feature map or a tuple of them.
    """

    def __init__(self, pixels: Pixels, backbone: nn.Module) -> None:
        super().__init__()
        self.pixels, self.backbone = pixels, backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return (N, C_i, H/s_i, W/s_i) of each stage for ``image`` (N, 3, H, W) uint8."""
        features = self.backbone(self.pixels(image))
        return features if isinstance(features, tuple) else (features,)


def check_exportable(network: nn.Module) -> None:
    """Check that a network consists of what other runtimes have.

    Raises:
        UserError: It has deformable convolutions or other operations of mmcv's.
    """
    for name, module in network.named_modules():
        kind = type(module)
        if 'Deform' in kind.__name__ or kind.__name__ in ('CARAFE', 'CARAFEPack', 'MaskedConv2d', 'SAConv2d'):
            raise UserError(
                f'{name} is a {kind.__name__}, an operation of mmcv that neither ONNX nor OpenVINO has; export a model '
                'without it (dcn=None)'
            )
