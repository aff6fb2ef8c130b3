"""A model of six numbers, its data and its metric: whole runs in a fraction of a second, and faults on demand."""

import math
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch.utils.data import Dataset

CONFIG = """
default_scope = 'mmengine'
model = dict(type='RunTiny')
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(type='RunNumbers', length=8),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=1, num_workers=0, dataset=dict(type='RunNumbers', length=2),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg, test_cfg = dict(), dict()
val_evaluator = dict(type='RunMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='score', rule='greater'))
randomness = dict(seed=0)
"""


class SendsSignal:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@MODELS.register_module()
class RunTiny(BaseModel):
    """A linear layer with faults: steps with losses of NaN (``spoil``: and gradients), an error, a signal."""

    def __init__(
        self, *, nan_from: int = 0, nan_steps: int = 10**6, spoil: bool = False, raise_at: int = 0,
        words: str = 'the fault that was asked for', signal_at: int = 0, in_destructor: bool = False, width: int = 2,
        norm: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        layer: torch.nn.Module = torch.nn.Linear(width, width)
        if norm:
            plane = torch.nn.Unflatten(1, (width, 1, 1))
            layer = torch.nn.Sequential(layer, plane, build_norm_layer(norm, width)[1], torch.nn.Flatten())
        self.layer = layer
        self.nan, self.spoil = range(nan_from or 10**9, (nan_from or 10**9) + nan_steps), spoil
        self.raise_at, self.words, self.signal_at, self.in_destructor = raise_at, words, signal_at, in_destructor
        self.step = 0

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        out = self.layer(torch.stack(list(inputs)))
        if mode != 'loss':
            return [dict(value=value) for value in out]
        self.step += 1
        if self.step == self.raise_at:
            raise RuntimeError(self.words)
        if self.step == self.signal_at:
            SendsSignal() if self.in_destructor else os.kill(os.getpid(), signal.SIGTERM)
        loss = out.square().mean()
        if self.step not in self.nan:
            return dict(loss=loss)
        return dict(loss=loss * math.nan) if self.spoil else dict(loss_a=loss, loss_b=torch.tensor(math.nan))


@DATASETS.register_module()
class RunNumbers(Dataset):
    """Pairs of numbers; ``broken`` is the index that cannot be read."""

    def __init__(self, *, length: int, broken: int = -1, width: int = 2) -> None:
        self.items = torch.linspace(-1, 1, length * width).reshape(length, width)
        self.broken = broken

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.broken:
            raise OSError('the sample cannot be read')
        return dict(inputs=self.items[index], data_samples=index)


@METRICS.register_module()
class RunMetric(BaseMetric):
    """Gives the ``scores`` one after another, the last one again and again."""

    def __init__(self, *, scores: Sequence[Any] = (1.0,), others: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.scores, self.others = list(scores), others or {}

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        score = self.scores.pop(0) if len(self.scores) > 1 else self.scores[0]
        return dict(score=math.nan if score == 'nan' else score, **self.others)


@METRICS.register_module()
class RunMean(RunMetric):
    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [sample['value'].sum().item() for sample in data_samples]

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return dict(score=sum((i + 1) * value for i, value in enumerate(results)))


def write_config(folder: Path, text: str = '') -> Path:
    """Write the config, with ``text`` behind it, and return its path."""
    (folder / 'tiny.py').write_text(CONFIG + text)
    return folder / 'tiny.py'


def weights(path: Path | str, key: str = 'state_dict') -> dict[str, Any]:
    return torch.load(path, weights_only=False)[key]
