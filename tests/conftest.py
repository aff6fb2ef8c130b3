"""Settings of every test: two threads as on the smallest machine supported (or OMP_NUM_THREADS), and fixed seeds."""

import os
import random

import numpy as np
import pytest
import torch

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '2')))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
