"""Data sets of salient objects: a folder of images, one of masks with the same names, and a list of names or none.

What ``tools/prepare_data.py`` lays out has the folders ``images`` and ``masks``. The official releases can be read
where they were unpacked, too: ``layout='published'`` takes folders and suffix from :data:`PUBLISHED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset

from mmres2net.errors import UserError
from mmres2net.registry import DATASETS
from mmres2net.saliency.masks import salient_pixels, sample_fault, transparency_fault


class Release(NamedTuple):
    """How a data set lies in its official release; masks are PNG in all of them."""

    images: str
    masks: str
    img_suffix: str
    number: int
    """Images; MSRA-B's lists have 2,500 for training, 500 for validation and 2,000 for testing."""


PUBLISHED: Mapping[str, Release] = MappingProxyType(
    {
        'MSRA-B': Release('', '', '.jpg', 5_000),
        'ECSSD': Release('images', 'ground_truth_mask', '.jpg', 1_000),
        'PASCAL-S': Release('datasets/imgs/pascal', 'datasets/masks/pascal', '.jpg', 850),
        'HKU-IS': Release('imgs', 'gt', '.png', 4_447),
        'DUT-OMRON': Release('DUT-OMRON-image', 'pixelwiseGT-new-PNG', '.jpg', 5_168),
    }
)
PREPARED = Release('images', 'masks', '.jpg', 0)


@DATASETS.register_module()
class SaliencyDataset(BaseDataset):
    """Images with masks of their salient objects, in the form in which mmseg's transforms take samples.

    Args:
        dataset_name: Name of the data set, which every sample carries: figures are given by it.
        layout: ``prepared``: folders ``images`` and ``masks``; ``published``: those of the official release of
            ``dataset_name``, one of :data:`PUBLISHED`.
        data_root: Folder that the other paths start from.
        ann_file: A list of names, one a line, with suffix or without; '' is every image of the folder.
        data_prefix: ``img_path`` and ``seg_map_path``: other folders. Without ``seg_map_path`` samples have no masks.
        img_suffix: How the names of images end, if not as in the layout (``.jpg``; HKU-IS is published as ``.png``).
        seg_map_suffix: How the names of masks end.
        pipeline: Transforms of a sample.
        indices: Takes the first so many samples, or those of these numbers.
        lazy_init: Reads list and folder only when the first sample is asked for.

    Raises:
        UserError: No such layout, list or folder, or no image.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        'classes': ('background', 'salient'),
        'palette': [[0, 0, 0], [220, 60, 60]],
    }

    def __init__(
        self,
        *,
        dataset_name: str,
        layout: Literal['prepared', 'published'] = 'prepared',
        data_root: str = '',
        ann_file: str = '',
        data_prefix: dict[str, str] | None = None,
        img_suffix: str | None = None,
        seg_map_suffix: str = '.png',
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        release = release_of(dataset_name, layout)
        self.dataset_name, self.seg_map_suffix = dataset_name, seg_map_suffix
        self.img_suffix = release.img_suffix if img_suffix is None else img_suffix
        folders = {'img_path': release.images, 'seg_map_path': release.masks}
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(data_prefix or folders),
            pipeline=list(pipeline),
            indices=indices,
            lazy_init=lazy_init,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return a dict for each image, in the order of the list, or by name without one.

        Raises:
            UserError: No such list or folder, or no image.
        """
        names = self._listed() if self.ann_file else self._found()
        if not names:
            where = self.ann_file or f'{self.data_prefix["img_path"]}: no file ends in {self.img_suffix!r}'
            raise UserError(f'the split of {self.dataset_name} is empty ({where})')
        return [self._info(name) for name in names]

    def _listed(self) -> list[str]:
        try:
            lines = Path(self.ann_file).read_text(encoding='utf-8').splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f'{self.ann_file} is not a list of images: {error}') from error
        return [self._without_suffix(line.strip()) + self.img_suffix for line in lines if line.strip()]

    def _found(self) -> list[str]:
        folder = Path(self.data_prefix['img_path'])
        if not folder.is_dir():
            raise UserError(f'no folder {folder}, where the images of {self.dataset_name} should be')
        names = (path.name for path in folder.iterdir() if path.is_file())
        # Archives made on a Mac have a hidden file beside every image.
        return sorted(name for name in names if name.endswith(self.img_suffix) and not name.startswith('.'))

    def _without_suffix(self, name: str) -> str:
        for suffix in (self.img_suffix, self.seg_map_suffix):
            if name.endswith(suffix):
                return name.removesuffix(suffix)
        return name

    def _info(self, name: str) -> dict[str, Any]:
        info: dict[str, Any] = {
            'img_path': str(Path(self.data_prefix['img_path']) / name),
            'dataset_name': self.dataset_name,
            'label_map': None,
            'reduce_zero_label': False,
            'seg_fields': [],
        }
        masks = self.data_prefix.get('seg_map_path')
        if masks is not None:
            info['seg_map_path'] = str(Path(masks) / (name.removesuffix(self.img_suffix) + self.seg_map_suffix))
        return info

    def fault_of(self, info: dict[str, Any]) -> str:
        """Return why the files of a sample's ``info`` cannot be used, nothing where they can: asked before a run."""
        if 'seg_map_path' in info:
            return sample_fault(info['img_path'], info['seg_map_path'])
        return self.image_fault(info['img_path'])

    def image_fault(self, path: str) -> str:
        """Return why an image file cannot be used, other than by damage; nothing where it can."""
        return transparency_fault(path)

    def read_mask(self, path: str) -> np.ndarray:
        """Return the labels (H, W) of a mask file: 0 background, 1 salient.

        Raises:
            UserError: The file cannot say which pixels are salient.
        """
        return salient_pixels(path)


def release_of(dataset_name: str, layout: str) -> Release:
    """Return where images and masks of a data set lie.

    Raises:
        UserError: No such layout, or a data set whose release is not known.
    """
    if layout == 'prepared':
        return PREPARED
    if layout != 'published':
        raise UserError(f"SaliencyDataset: layout={layout!r}; choose 'prepared' or 'published'")
    if dataset_name not in PUBLISHED:
        raise UserError(
            f"SaliencyDataset: layout='published' is known of {', '.join(PUBLISHED)}, not of {dataset_name!r}; give "
            'its folders as data_prefix=dict(img_path=..., seg_map_path=...), and img_suffix'
        )
    return PUBLISHED[dataset_name]
