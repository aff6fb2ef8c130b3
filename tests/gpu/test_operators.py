"""mmcv's operators on a GPU, by torchvision's and compiled, against float64 on a CPU, whose operators loops confirm."""

from types import ModuleType

import pytest
import torch
from mmcv import ops

from mmres2net.ops import guard_mmcv_operators
from tests.gpu.compare import bound, error
from tests.mmcv_ops.conftest import Use
from tests.mmcv_ops.test_operators import runs

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize('kind', ['provided', 'compiled'])
def test_operators(kind: str, device: str, use: Use, provided: ModuleType, request: pytest.FixtureRequest) -> None:
    use(provided)
    found = []
    for to in (('cpu', torch.float64), ('cpu',), (device,)):
        torch.manual_seed(0)
        if len(found) == 2:
            use(request.getfixturevalue(kind))
        found.append({name: [tensor.detach() for tensor in run()] for name, run in runs(*to)})
    for name in found[0]:
        for wanted, other, one in zip(*(results[name] for results in found), strict=True):
            assert (one.shape, one.device.type in (device, 'cpu')) == (wanted.shape, True), name
            if wanted.is_floating_point():
                assert error([one], [wanted.double()]) < bound(error([other], [wanted.double()])), name
            else:
                assert torch.equal(one.cpu(), wanted), name
    guard_mmcv_operators()
    x, rois = torch.randn(1, 8, 9, 9, device=device), torch.tensor([[0, 1.0, 1, 7, 8]], device=device)
    assert torch.equal(ops.roi_align(x.to(memory_format=torch.channels_last), rois, 3), ops.roi_align(x, rois, 3))
