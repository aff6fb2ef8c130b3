"""Data sets of a few small images with configs that read them, for tests that break one thing each."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

WIDTH, HEIGHT = 96, 64
CLASSES = ('car', 'dog')
COUNTS = {'train': 4, 'val': 2}  # images
XML = '<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>'
OBJECT = (
    '<object><name>{}</name><difficult>0</difficult>'
    '<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
)


@dataclass
class TinySet:
    root: Path
    cfg: Config
    content: dict[str, Any]  # of COCO: the annotation files by part

    def write(self) -> Path:
        for part, content in self.content.items():
            (self.root / f'{part}.json').write_text(json.dumps(content))
        path = self.root / 'config.py'
        self.cfg.dump(path)
        return path

    def dataset(self, part: str = 'train') -> Any:
        return self.cfg[f'{part}_dataloader'].dataset


def draw(path: Path, seed: int, *, size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> Path:
    """Write an image of noise; no two seeds give the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(path, **options)
    return path


def turned(path: Path, seed: int, size: tuple[int, int]) -> Path:
    tag = Image.Exif()
    tag[0x0112] = 6
    return draw(path, seed, size=size, exif=tag)


def config(scope: str, train: dict, val: dict, model: dict, evaluator: dict) -> Config:
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True))
    cfg = dict(
        default_scope=scope, model=model, work_dir='work_dirs/tiny', train_dataloader=dict(loader, dataset=train)
    )
    for part in ('val', 'test'):
        cfg[f'{part}_dataloader'] = dict(loader, dataset=copy.deepcopy(val))
        cfg[f'{part}_evaluator'] = copy.deepcopy(evaluator)
    return Config(cfg)


def coco_set(root: Path, *, masks: bool = False) -> TinySet:
    """Four training images and two of validation, a car and a dog in each, as COCO JSON."""
    content = {}
    for part, count in COUNTS.items():
        images, annotations = [], []
        for i in range(count):
            draw(root / part / f'{i}.jpg', 10 * count + i)
            images.append({'id': i + 1, 'file_name': f'{i}.jpg', 'width': WIDTH, 'height': HEIGHT})
            for category, (x, y) in enumerate(((10, 10), (50, 20)), 1):
                box = [x, y, 30, 20]
                polygon = [x, y, x + 30, y, x + 30, y + 20]
                annotations.append({
                    'id': len(annotations) + 1, 'image_id': i + 1, 'category_id': category, 'bbox': box, 'area': 600,
                    'iscrowd': 0, 'segmentation': [polygon],
                })  # fmt: skip
        categories = [{'id': k, 'name': name} for k, name in enumerate(CLASSES, 1)]
        content[part] = {'images': images, 'annotations': annotations, 'categories': categories}

    def dataset(part: str) -> dict:
        pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=masks)]
        return dict(
            type='CocoDataset', data_root=str(root), ann_file=f'{part}.json', data_prefix=dict(img=f'{part}/'),
            metainfo=dict(classes=CLASSES), pipeline=pipeline, filter_cfg=dict(filter_empty_gt=True, min_size=32),
        )  # fmt: skip

    heads = dict(bbox_head=dict(num_classes=2), **(dict(mask_head=dict(num_classes=2)) if masks else {}))
    metric = ['bbox', 'segm'] if masks else 'bbox'
    evaluator = dict(type='mmres2net.COCOMetric', ann_file=str(root / 'val.json'), metric=metric)
    cfg = config('mmdet', dataset('train'), dataset('val') | dict(test_mode=True), dict(roi_head=heads), evaluator)
    return TinySet(root, cfg, content)


def voc_set(root: Path) -> TinySet:
    for part, count in COUNTS.items():
        for i in range(count):
            draw(root / f'JPEGImages/{part}{i}.jpg', 10 * count + i)
            objects = OBJECT.format('car', 10, 10, 40, 30) + OBJECT.format('dog', 50, 20, 80, 40)
            (root / 'Annotations').mkdir(exist_ok=True)
            text = XML.format(width=WIDTH, height=HEIGHT, objects=objects)
            (root / f'Annotations/{part}{i}.xml').write_text(text)
        (root / f'{part}.txt').write_text(''.join(f'{part}{i}\n' for i in range(count)))

    def dataset(part: str) -> dict:
        return dict(
            type='VOCDataset', data_root=str(root), ann_file=f'{part}.txt', data_prefix=dict(sub_data_root=''),
            metainfo=dict(classes=CLASSES), pipeline=[], filter_cfg=dict(filter_empty_gt=True, min_size=32),
        )  # fmt: skip

    model = dict(roi_head=dict(bbox_head=dict(num_classes=2)))
    evaluator = dict(type='mmres2net.VOCMetric')
    return TinySet(root, config('mmdet', dataset('train'), dataset('val') | dict(test_mode=True), model, evaluator), {})


def mask_set(root: Path, change: Callable[[np.ndarray], Any] = lambda mask: mask) -> TinySet:
    """Four training images and two of validation with masks of 0 (ground) and 1 (road), changed by ``change``."""
    for part, count in COUNTS.items():
        for i in range(count):
            draw(root / f'img/{part}/{i}.jpg', 10 * count + i)
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[20:40, 10 + i : 60] = 1
            changed = change(mask)
            path = root / f'ann/{part}/{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            (changed if isinstance(changed, Image.Image) else Image.fromarray(changed)).save(path)

    def dataset(part: str) -> dict:
        prefix = dict(img_path=f'img/{part}', seg_map_path=f'ann/{part}')
        classes = dict(classes=('ground', 'road'))
        return dict(type='BaseSegDataset', data_root=str(root), data_prefix=prefix, metainfo=classes, pipeline=[])

    heads = dict(decode_head=dict(type='ASPPHead', num_classes=2, norm_cfg=dict(type='BN')))
    heads['auxiliary_head'] = dict(type='FCNHead', num_classes=2)
    return TinySet(root, config('mmseg', dataset('train'), dataset('val'), heads, dict(type='mmres2net.IoUMetric')), {})


def folder_set(root: Path) -> TinySet:
    for part, count in COUNTS.items():
        for i in range(count):
            draw(root / part / ('cat', 'dog')[i % 2] / f'{i}.jpg', 10 * count + i)

    def dataset(part: str) -> dict:
        return dict(type='CustomDataset', data_root=str(root), data_prefix=part, pipeline=[])

    model = dict(head=dict(num_classes=2))
    return TinySet(
        root, config('mmpretrain', dataset('train'), dataset('val'), model, dict(type='Accuracy', topk=1)), {}
    )
