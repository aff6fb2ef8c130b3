"""Images and masks in a list: the data set class that training reads own masks with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mmres2net.data.formats.base import read_lines
from mmres2net.errors import UserError
from mmres2net.registry import DATASETS


@DATASETS.register_module()
class PairedSegDataset(BaseDataset):
    """Images with masks of class indices, as samples for mmseg's transforms.

    Args:
        ann_file: A list with a line ``IMAGE<tab>MASK`` for each image.
        metainfo: ``classes`` and ``palette``.
        data_root: Folder that relative paths are relative to, that of the list too.
        pipeline: Transforms of a sample.
        ignore_index: The value in masks that is ignored.
        indices: Number of samples to use, or their indices.
        test_mode: Evaluate: an image that cannot be read is an error.
        lazy_init: Read the list at the first access.

    Raises:
        UserError: The list cannot be read.
    """

    label_map, reduce_zero_label = None, False  # as mmseg's data sets name them

    def __init__(
        self,
        *,
        ann_file: str,
        metainfo: Mapping[str, Any] | None = None,
        data_root: str = '',
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        ignore_index: int = 255,
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.ignore_index = ignore_index
        options: dict[str, Any] = {
            'indices': indices,
            'test_mode': test_mode,
            'lazy_init': lazy_init,
            'data_prefix': {},
        }
        super().__init__(ann_file, dict(metainfo or {}), data_root, pipeline=list(pipeline), **options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return a dict for each line of the list, in its order."""
        samples: list[dict[str, Any]] = []
        for number, line in enumerate(read_lines(Path(self.ann_file)), 1):
            image, _, mask = line.partition('\t')
            if not image or not mask:
                raise UserError(f'{self.ann_file}: line {number} is {line!r}; write IMAGE, a tab and MASK')
            paths = {
                'img_path': os.path.join(self.data_root, image),
                'seg_map_path': os.path.join(self.data_root, mask),
            }
            samples.append({**paths, 'label_map': None, 'reduce_zero_label': False, 'seg_fields': []})
        return samples
