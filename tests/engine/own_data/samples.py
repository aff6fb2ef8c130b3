"""Own data as objects, without files."""

from pathlib import Path

from mmengine.config import Config

from mmres2net.data.formats.base import Split
from mmres2net.data.own.dataset import OwnData, OwnSplit
from mmres2net.engine.own_data.fit import is_saliency, task_of

FORMATS = {'detection': 'voc', 'instances': 'coco', 'segmentation': 'masks', 'classification': 'folders'}


def own_data(task: str, count: int = 3, *, images: int = 240, empty: int = 0, test: bool = False) -> OwnData:
    """Data of ``count`` classes for a task; ``empty`` images of each split have no annotation."""
    classes = tuple(f'class{i}' for i in range(count))
    suffix = '.json' if task in ('detection', 'instances') else '.txt'
    counts = dict.fromkeys(classes, 5)
    splits = {
        name: OwnSplit(name, number, number - empty, counts, Path(f'/data/{name}{suffix}'), Split(name, '', ''))
        for name, number in {'train': images, 'val': 60, **({'test': 30} if test else {})}.items()
    }
    palette = tuple((i, i, i) for i in range(count))
    return OwnData(Path('/data'), FORMATS[task], task, Path('/data/images'), classes, palette, splits, ())


def own_data_for(cfg: Config, count: int = 3) -> OwnData:
    return own_data(task_of(cfg, 'config'), 2 if is_saliency(cfg) else count)
