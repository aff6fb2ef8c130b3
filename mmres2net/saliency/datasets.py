"""Data sets of salient objects: a folder of images, one of masks of the same names, and optionally a list of names.

Data sets made by ``mmres2net prepare-data`` have the folders ``images`` and ``masks``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset

from mmres2net.errors import UserError
from mmres2net.registry import DATASETS
from mmres2net.saliency.masks import salient_pixels, transparency_fault

FOLDERS = {'img_path': 'images', 'seg_map_path': 'masks'}


@DATASETS.register_module()
class SaliencyDataset(BaseDataset):
    """Images with masks of their salient objects, as samples for mmseg's transforms.

    ``data_root``, ``pipeline``, ``indices`` and ``lazy_init`` are those of MMEngine's ``BaseDataset``. A UserError says
    that the list or a folder is missing, or that there is no image.

    Args:
        dataset_name: Name of the data set; metrics are reported under it.
        ann_file: A list of names, one per line, with or without suffix; '': all images of the folder. The check before
            a run lists image files of another suffix.
        data_prefix: ``img_path`` and ``seg_map_path``: other folders than ``images`` and ``masks``. Without
            ``seg_map_path`` samples have no masks.
        img_suffix: Suffix of images, in upper or lower case.
        seg_map_suffix: Suffix of masks.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': ('background', 'salient'), 'palette': [[0, 0, 0], [220, 60, 60]]}

    def __init__(
        self,
        *,
        dataset_name: str,
        data_root: str = '',
        ann_file: str = '',
        data_prefix: dict[str, str] | None = None,
        img_suffix: str = '.jpg',
        seg_map_suffix: str = '.png',
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        self.dataset_name, self.img_suffix, self.seg_map_suffix = dataset_name, img_suffix, seg_map_suffix
        own = {'ann_file': ann_file, 'data_root': data_root, 'data_prefix': dict(data_prefix or FOLDERS)}
        super().__init__(**own, pipeline=list(pipeline), indices=indices, lazy_init=lazy_init)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return a dict for each image, in the order of the list, or else sorted by name."""
        names = self._names_in_list() if self.ann_file else self._names_in_folder()
        if not names:
            where = self.ann_file or f'{self.data_prefix["img_path"]}: no file ends in {self.img_suffix!r}'
            raise UserError(f'the split of {self.dataset_name} is empty ({where})')
        images, masks = self.data_prefix['img_path'], self.data_prefix.get('seg_map_path')
        infos = []
        for name in names:
            info: dict[str, Any] = {'img_path': str(Path(images) / name), 'dataset_name': self.dataset_name}
            info |= {'label_map': None, 'reduce_zero_label': False, 'seg_fields': []}
            if masks is not None:
                stem = name[: len(name) - len(self.img_suffix)]  # its suffix may be in upper case
                info['seg_map_path'] = str(Path(masks) / f'{stem}{self.seg_map_suffix}')
            infos.append(info)
        return infos

    def _names_in_list(self) -> list[str]:
        try:
            lines = Path(self.ann_file).read_text(encoding='utf-8').splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f'{self.ann_file} is not a list of images: {error}') from error
        names = [line.strip() for line in lines if line.strip()]
        mask = self.seg_map_suffix
        bare = [name.removesuffix(self.img_suffix if name.endswith(self.img_suffix) else mask) for name in names]
        return [name + self.img_suffix for name in bare]

    def _names_in_folder(self) -> list[str]:
        folder = Path(self.data_prefix.get('img_path', ''))
        if not folder.is_dir():
            raise UserError(f'the images of {self.dataset_name} are missing: there is no folder {folder}')
        # Archives made on a Mac have a hidden file beside every image.
        found = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith('.'))
        return [name for name in found if name.lower().endswith(self.img_suffix.lower())]

    def image_fault(self, path: str) -> str:
        """Return why an image file cannot be used, else ''; damage is reported by another check."""
        return transparency_fault(path)

    def read_mask(self, path: str) -> np.ndarray:
        """Return the labels (H, W) of a mask file: 0 background, 1 salient; a UserError if it is no such mask."""
        return salient_pixels(path)
