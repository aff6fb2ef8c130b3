"""Predictions as text, data for JSON, maps and drawn images; and the folder of ``--out``, written as they come."""

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_masks

from mmres2net.drawing import add_legend, class_color, draw_boxes, draw_heat_map, draw_label_map, draw_masks, legible
from mmres2net.errors import UserError, reason_of
from mmres2net.files import atomic_path
from mmres2net.predict.images import Array, Mask, decode_mask
from mmres2net.predict.inputs import count_and_rate, is_stream, output_paths
from mmres2net.predict.runtimes import ExportMetadata

Prediction = dict[str, Any]  # as of mmres2net.Predictor
TOP = 5  # classes of a classifier that are listed
LABELS, SALIENCY, DRAWN, VIDEO = '_labels.png', '_saliency.png', '.png', '.mp4'
COCO_FILE, CSV_FILE = 'predictions.json', 'predictions.csv'
CODEC = 'mp4v'  # MPEG-4 part 2: every build of OpenCV has it
COLUMNS = ('image', 'frame', 'rank', 'label', 'class', 'score')


def describe(prediction: Prediction, metadata: ExportMetadata) -> dict[str, Any]:
    """Return a prediction as data for JSON: detections, classes by score or share of pixels, or sizes of features."""
    name = metadata.class_name
    if metadata.task == 'detection':
        rows = [
            {'class': name(label), 'label': label, 'score': round(score, 5), 'box': [round(value, 3) for value in box]}
            | ({} if mask is None else {'segmentation': mask})
            for box, score, label, mask in detections_of(prediction)
        ]
        return {'detections': rows}
    if metadata.task == 'segmentation':
        labels, counts = np.unique(prediction['classes'], return_counts=True)
        order = np.argsort(-counts, kind='stable')
        return {'shares': {name(int(labels[i])): round(float(counts[i] / counts.sum()), 4) for i in order}}
    if metadata.task == 'classification':
        best = np.argsort(-prediction['scores'], kind='stable')[:TOP]
        scores = [(int(label), round(float(prediction['scores'][label]), 5)) for label in best]
        return {'classes': [{'class': name(label), 'label': label, 'score': score} for label, score in scores]}
    return {'features': {key: list(value.shape) for key, value in prediction.items()}}


def detections_of(prediction: Prediction) -> list[tuple[list[float], float, int, Mask | None]]:
    """Return box, score, label and mask, if there is one, of each detection."""
    columns = [prediction[key].tolist() for key in ('boxes', 'scores', 'labels')]
    return list(zip(*columns, prediction.get('masks', [None] * len(columns[0])), strict=True))


def format_prediction(name: str, content: dict[str, Any]) -> str:
    """Return what :func:`describe` gives as lines of text."""
    (kind, entries), *_ = content.items()
    if kind == 'detections':
        rows = [f'  {r["class"]:<16} {r["score"]:.3f}  box {" ".join(f"{v:.1f}" for v in r["box"])}' for r in entries]
        return '\n'.join([f'{name}: {len(rows)} detections', *rows])
    if kind == 'classes':
        return '\n'.join([f'{name}:', *(f'  {row["class"]:<16} {row["score"]:.3f}' for row in entries)])
    rows = [f'  {name:<16} {f"{value:.1%}" if kind == "shares" else value}' for name, value in entries.items()]
    return '\n'.join([f'{name}:', *rows])


def label_map(classes: Array, metadata: ExportMetadata) -> Image.Image:
    """Return a map of classes (H, W) as an image whose pixel values are the classes: 8 bits with a palette, or 16."""
    if classes.max() > 255:
        return Image.fromarray(classes.astype(np.uint16))
    image = Image.fromarray(classes.astype(np.uint8), 'P')
    image.putpalette([value for label in range(256) for value in class_color(label, metadata.palette)])
    return image


def saliency_map(probabilities: Array) -> Image.Image:
    """Return probabilities (H, W) as an 8-bit grey image, ``round(255 p)``."""
    return Image.fromarray(np.rint(255 * np.clip(probabilities, 0, 1)).astype(np.uint8))


def keep_above(prediction: Prediction, score: float) -> Prediction:
    """Return a prediction without the detections below a score; those of other tasks as they are."""
    if 'boxes' not in prediction:
        return prediction
    kept = prediction['scores'] >= score
    out = {key: prediction[key][kept] for key in ('boxes', 'scores', 'labels')}
    if 'masks' in prediction:
        out['masks'] = [mask for mask, keep in zip(prediction['masks'], kept, strict=True) if keep]
    return out


def draw_prediction(image: Array, prediction: Prediction, metadata: ExportMetadata, *, legend: bool = True) -> Array:
    """Return ``image`` (H, W, 3) uint8 RGB with a prediction drawn into it or, for classes, listed below it.

    The features of a backbone are drawn as the mean absolute value of its last stage. Without a ``legend``, no lines
    are added below the image, and a classifier's best class is written into it.
    """
    if 'saliency' in prediction:
        return draw_heat_map(image, prediction['saliency'])
    if metadata.task == 'segmentation':
        labels = np.unique(prediction['classes']).tolist()
        colors = [class_color(label, metadata.palette) for label in range(max(labels) + 1)]
        drawn = draw_label_map(image, prediction['classes'], colors)
        names = [(legible(metadata.class_name(label), label), colors[label]) for label in labels]
        return add_legend(drawn, '', names) if legend else drawn
    if metadata.task == 'detection':
        rows = detections_of(prediction)
        colors = [class_color(label, metadata.palette) for _, _, label, _ in rows] or [(255, 255, 255)]
        texts = [f'{legible(metadata.class_name(label), label)} {score:.2f}' for _, score, label, _ in rows]
        drawn = draw_masks(image, (decode_mask(mask) for mask in prediction.get('masks', ())), colors)
        return draw_boxes(drawn, prediction['boxes'], texts, colors)
    if metadata.task == 'classification':
        best = [(r['class'].split(',')[0], r['label'], r['score']) for r in describe(prediction, metadata)['classes']]
        entries = [(f'{legible(name, label)} {score:.2f}', class_color(label)) for name, label, score in best]
        if legend:
            return add_legend(image, '', entries)
        return draw_boxes(image, [(0, 0, image.shape[1], image.shape[0])], [entries[0][0]], [entries[0][1]])
    strength = np.abs(prediction[metadata.outputs[-1]]).mean(0)
    return draw_heat_map(image, (strength - strength.min()) / max(float(np.ptp(strength)), 1e-12))


class CocoIds:
    """Ids of images and of ``classes`` as a COCO annotation file has them; a UserError says what is missing."""

    def __init__(self, file: str | Path, classes: Sequence[str]) -> None:
        self.file = file
        self._images: dict[str, list[tuple[str, int]]] = {}
        try:
            content = json.loads(Path(file).expanduser().read_bytes())
            names = {str(entry['name']): int(entry['id']) for entry in content['categories']}
            for entry in content['images']:
                name = str(entry['file_name'])
                self._images.setdefault(Path(name).name, []).append((name, int(entry['id'])))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f'--ann {file} cannot be read as a COCO annotation file: {reason_of(error)}') from error
        missing = [name for name in classes if name not in names] if classes else ['of unknown name']
        if missing:
            raise UserError(f'--ann {file}: the model has the class {missing[0]!r}, this file has {", ".join(names)}')
        self.categories = [names[name] for name in classes]

    def image(self, path: Path) -> int:
        """Return the id of an image, by the end of its path; a UserError if not exactly one image has it."""
        place = f'/{path.absolute().as_posix()}'
        found = [number for name, number in self._images.get(path.name, ()) if place.endswith(f'/{name}')]
        if len(found) != 1:
            raise UserError(f'--ann {self.file}: it names {len(found)} images that {path} could be; 1 is needed')
        return found[0]


class CocoWriter:
    """Detections as COCO JSON, image by image: a list of results with ``ids``, else category k + 1 for class k."""

    def __init__(self, file: Any, metadata: ExportMetadata, ids: CocoIds | None = None) -> None:
        self._file, self._metadata, self._ids = file, metadata, ids
        self._images = tempfile.TemporaryFile('w+')  # noqa: SIM115 - closed with the file
        self._seen, self._count, self._labels = 0, 0, len(metadata.classes)
        self._file.write('[\n' if ids else '{"annotations": [\n')

    def add(self, path: Path, frame: int | None, size: tuple[int, ...], prediction: Prediction) -> None:
        """Write the detections of an image, or of a frame of a video, of ``size`` (height, width)."""
        self._seen += 1
        number = self._ids.image(path) if self._ids else self._seen
        image: dict[str, Any] = {'id': number, 'file_name': str(path), 'height': size[0], 'width': size[1]}
        image |= {} if frame is None else {'frame': frame}
        self._images.write(f'{", " if self._seen > 1 else ""}{json.dumps(image)}\n')
        for entry in self._entries(number, prediction):
            self._file.write(f'{", " if self._count else ""}{json.dumps(entry)}\n')
            self._count += 1

    def _entries(self, number: int, prediction: Prediction) -> Iterator[dict[str, Any]]:
        for box, score, label, mask in detections_of(prediction):
            width, height = box[2] - box[0], box[3] - box[1]
            self._labels = max(self._labels, label + 1)
            entry: dict[str, Any] = {'image_id': number, 'score': score, 'bbox': [box[0], box[1], width, height]}
            entry['category_id'] = self._ids.categories[label] if self._ids else label + 1
            if not self._ids:
                area = width * height if mask is None else int(coco_masks.area(mask))
                entry |= {'id': self._count + 1, 'area': area, 'iscrowd': 0}
            yield entry if mask is None else {**entry, 'segmentation': mask}

    def close(self) -> None:
        """Write the end of the file."""
        if not self._ids:
            names = [{'id': k + 1, 'name': self._metadata.class_name(k)} for k in range(self._labels)]
            self._file.write(f'], "categories": {json.dumps(names)}, "images": [\n')
            self._images.seek(0)
            shutil.copyfileobj(self._images, self._file)
        self._images.close()
        self._file.write(']\n' if self._ids else ']}\n')


class Results:
    """The files of ``--out`` for the inputs ``paths``; ``ids`` are those of an annotation file, for detections.

    As a context it completes all files; those of a run that was stopped hold what was predicted until then. After an
    error they stay as they were.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], metadata: ExportMetadata, ids: CocoIds | None) -> None:
        self._metadata, self._stack = metadata, ExitStack()
        maps = {'classes': LABELS, 'saliency': SALIENCY} if metadata.task == 'segmentation' else {}
        self._maps = {key: ending for key, ending in maps.items() if key == 'classes' or key in metadata.outputs}
        endings = (DRAWN, *self._maps.values())
        self._targets = output_paths(paths, folder, lambda path: (VIDEO,) if is_stream(path) else endings)
        self._coco: CocoWriter | None = None
        self._rows: Any = None
        self._video: Any = None
        self._source: Path | None = None  # of the video
        if metadata.task == 'detection':
            self._coco = CocoWriter(self._open(folder / COCO_FILE), metadata, ids)
            self._stack.callback(self._coco.close)
        if metadata.task == 'classification':
            self._rows = csv.writer(self._open(folder / CSV_FILE))
            self._rows.writerow(COLUMNS)

    def _open(self, path: Path) -> Any:
        """Return a file that gets its name when all files are completed."""
        return self._stack.enter_context(self._stack.enter_context(atomic_path(path)).open('w', newline=''))

    def __enter__(self) -> 'Results':
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._end_video()
        stopped = isinstance(error, KeyboardInterrupt)
        self._stack.__exit__(*((None, None, None) if stopped else (kind, error, trace)))

    def add(self, path: Path, frame: int | None, image: Array, prediction: Prediction) -> None:
        """Write what was predicted for an image or for a frame, counted from 1, of a video."""
        drawn = draw_prediction(image, prediction, self._metadata, legend=frame is None)
        self.write(path, frame, image.shape[:2], prediction, describe(prediction, self._metadata) if self._rows else {})
        target, *places = self._targets[path]
        if frame is not None:
            self._add_to_video(path, target, drawn)
            return
        Image.fromarray(drawn).save(target, compress_level=1)  # a quarter of the time of Pillow's level
        for key, place in zip(self._maps, places, strict=True):
            classes = key == 'classes'
            (label_map(prediction[key], self._metadata) if classes else saliency_map(prediction[key])).save(place)

    def write(
        self, path: Path, frame: int | None, size: tuple[int, ...], prediction: Prediction, content: Mapping[str, Any]
    ) -> None:
        """Write a prediction, or of a classifier its ``content`` as of :func:`describe`, into the file of them all."""
        if self._coco:
            self._coco.add(path, frame, size, prediction)
        if self._rows:
            name = '' if frame is None else frame
            for rank, row in enumerate(content['classes'], start=1):
                self._rows.writerow([path, name, rank, row['label'], row['class'], row['score']])

    def _add_to_video(self, path: Path, target: Path, frame: Array) -> None:
        """Write a frame into the video of ``path``, all of whose frames have the size of the first one."""
        import cv2

        if self._source != path:
            self._end_video()
            code, rate = cv2.VideoWriter.fourcc(*CODEC), count_and_rate(path)[1]
            self._source, self._video = path, cv2.VideoWriter(str(target), code, rate, frame.shape[1::-1])
            if not self._video.isOpened():
                raise UserError(f'{target} cannot be written: OpenCV has no encoder for {CODEC}, or the disk is full')
        self._video.write(np.ascontiguousarray(frame[..., ::-1]))

    def _end_video(self) -> None:
        if self._video is not None:
            self._video.release()
