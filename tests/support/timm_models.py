"""timm's names and features of the networks that it shares with us."""

from collections.abc import Callable

from torch import Tensor, nn

Features = Callable[[Tensor], list[Tensor]]

DLA = {'dla60': 'dla60', 'dla60x': 'dla60x', 'res2net_dla60_4s': 'dla60_res2net', 'res2next_dla60_4s': 'dla60_res2next'}


def resnet_features(model: nn.Module) -> Features:
    """Return a function that gives the outputs of all four stages of a timm ResNet."""
    stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)
    return lambda x: _outputs(stem(x), (model.layer1, model.layer2, model.layer3, model.layer4))


def dla_features(model: nn.Module) -> Features:
    """Return a function that gives the outputs of levels 2 to 5 of a timm DLA."""
    stem = nn.Sequential(model.base_layer, model.level0, model.level1)
    return lambda x: _outputs(stem(x), (model.level2, model.level3, model.level4, model.level5))


def _outputs(x: Tensor, stages: tuple[nn.Module, ...]) -> list[Tensor]:
    return [x := stage(x) for stage in stages]
