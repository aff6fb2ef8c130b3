"""Tests that need a GPU: `pytest -m gpu`. MMRES2NET_GPU_TESTS_ON=cpu runs their bodies on a CPU, to write them."""

import os

import pytest
import torch

from tests.mmcv_ops.conftest import compiled, provided, use  # noqa: F401 - fixtures


@pytest.fixture(scope='session')
def device() -> str:
    """Where the tests run; they are not skipped where torch sees no GPU, since then nothing would be tested."""
    name = os.environ.get('MMRES2NET_GPU_TESTS_ON', 'cuda')
    if name == 'cuda' and not torch.cuda.is_available():
        pytest.exit('torch sees no GPU; MMRES2NET_GPU_TESTS_ON=cpu runs the GPU tests on the CPU', returncode=1)
    return name


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 convolutions are float32, except where a test says otherwise; products of matrices are by default."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
