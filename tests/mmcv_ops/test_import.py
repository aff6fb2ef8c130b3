"""How the operators get in: only where mmcv has none, early enough, and in every process."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import mmcv
import pytest
import torch
from mmcv import ops
from torch import nn

from mmres2net.errors import UserError
from mmres2net.mmcv_ops import EXTENSION, OperatorFinder
from tests.mmcv_ops.conftest import Use

REPLACE = 'import mmres2net; from mmres2net.mmcv_ops import provide_operators; provide_operators(replace=True)\n'


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, *arguments, *(['-c', code] if code else [])]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_compiled_operators_go_first() -> None:
    spec = find_spec(EXTENSION)
    assert spec is not None
    has_compiled = any(Path(mmcv.__file__).parent.glob('_ext.*'))
    assert isinstance(spec.loader, OperatorFinder) is not has_compiled
    assert OperatorFinder().find_spec('mmcv._other') is OperatorFinder().find_spec('_ext') is None


def test_models_of_other_libraries_get_the_operators() -> None:
    code = (
        'from importlib.util import find_spec; import mmcv.ops, mmdet.models, torch\n'
        'from mmdet.models.dense_heads.base_dense_head import batched_nms\n'
        "print(find_spec('mmcv._ext').origin, mmcv.ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5)[1].tolist())\n"
        'print(batched_nms.__module__, mmcv.ops.get_compiling_cuda_version())'
    )
    lines = python(REPLACE + code).splitlines()
    assert lines[-2:] == ['mmres2net.mmcv_ops [0]', 'mmcv.ops.nms not available']


def test_an_operator_that_is_missing_is_named_with_the_model_part(provided: ModuleType) -> None:
    class Rotated(nn.Module):
        def forward(self) -> None:
            provided.nms_rotated(None, iou_threshold=0.5)

    with pytest.raises(UserError) as caught:
        Rotated()()
    for word in ('nms_rotated', 'Rotated', __name__, 'OPS=1'):
        assert word in str(caught.value)
    assert not hasattr(provided, '__path__')


def test_the_maximum_of_roi_align_is_refused(use: Use, provided: ModuleType) -> None:
    use(provided)
    with pytest.raises(UserError, match='OPS=1'):
        ops.RoIAlign(2, pool_mode='max')(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5))


def test_a_library_that_was_imported_before_is_warned_about() -> None:
    code = (
        "import sys, types, warnings; sys.modules['mmdet.structures'] = types.ModuleType('mmdet.structures')\n"
        'with warnings.catch_warnings(record=True) as caught:\n    import mmres2net\nprint(len(caught))'
    )
    assert python(code).split() == ['1']


@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_data_loader_workers_have_the_operators(method: str, tmp_path: Path) -> None:
    script = tmp_path / 'script.py'
    script.write_text(
        REPLACE + 'import torch\n'
        'class Data(torch.utils.data.Dataset):\n'
        '    def __len__(self): return 2\n'
        '    def __getitem__(self, index):\n'
        '        from mmcv.ops import nms\n'
        "        import sys; assert sys.modules['mmcv._ext'].__spec__.origin == 'mmres2net.mmcv_ops'\n"
        '        return nms(torch.zeros(2, 4), torch.ones(2), 0.5)[1].numel()\n'
        "if __name__ == '__main__':\n"
        f"    loader = torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context='{method}')\n"
        '    print([int(x) for x in loader])\n'
    )
    assert python('', str(script)).split('\n')[-2] == '[2, 2]'
