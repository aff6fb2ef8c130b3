"""Settings of every test: two threads as on the smallest machine supported, or one where tests run side by side."""

import os
import random

import numpy as np
import pytest
import torch

# Before any test: the threads of two processes on two cores would wait for each other most of the time.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')  # for the processes that tests start
torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '2')))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
