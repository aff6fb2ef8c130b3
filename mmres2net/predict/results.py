"""The folder of ``--out``: drawn images and videos, maps, and one file of all predictions, written as they come."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmres2net.errors import UserError
from mmres2net.files import atomic_path
from mmres2net.predict.coco import CocoIds, CocoWriter
from mmres2net.predict.inputs import count_and_rate, is_stream, output_paths
from mmres2net.predict.metadata import ExportMetadata
from mmres2net.predict.model import Prediction
from mmres2net.predict.outputs import describe, draw_prediction, label_map, saliency_map

Array = npt.NDArray[Any]
LABELS, SALIENCY, DRAWN, VIDEO = '_labels.png', '_saliency.png', '.png', '.mp4'
COCO_FILE, CSV_FILE = 'predictions.json', 'predictions.csv'
CODEC = 'mp4v'  # MPEG-4 part 2: every build of OpenCV has it
COLUMNS = ('image', 'frame', 'rank', 'label', 'class', 'score')


class Results:
    """The files of ``--out`` for the inputs ``paths``; ``ids`` are those of an annotation file, for detections."""

    def __init__(self, folder: Path, paths: Sequence[Path], metadata: ExportMetadata, ids: CocoIds | None) -> None:
        self._metadata, self._stack = metadata, ExitStack()
        maps = {'classes': LABELS, 'saliency': SALIENCY} if metadata.task == 'segmentation' else {}
        maps = {key: ending for key, ending in maps.items() if key == 'classes' or key in metadata.outputs}
        self._maps = list(maps)
        self._targets = output_paths(paths, folder, lambda p: (VIDEO,) if is_stream(p) else (DRAWN, *maps.values()))
        self._coco = CocoWriter(folder / COCO_FILE, metadata, ids) if metadata.task == 'detection' else None
        if self._coco:
            self._stack.callback(self._coco.close)
        self._rows: Any = None
        if metadata.task == 'classification':
            draft = self._stack.enter_context(atomic_path(folder / CSV_FILE))
            self._rows = csv.writer(self._stack.enter_context(draft.open('w', newline='')))
            self._rows.writerow(COLUMNS)
        self._video: tuple[Path, Video] | None = None

    def add(self, path: Path, frame: int | None, image: Array, prediction: Prediction) -> None:
        """Write what was predicted for an image or for a frame, counted from 1, of a video."""
        drawn = draw_prediction(image, prediction, self._metadata, legend=frame is None)
        if self._coco:
            self._coco.add(path, frame, image.shape[:2], prediction)
        if self._rows:
            rows = enumerate(describe(prediction, self._metadata)['classes'], start=1)
            name = '' if frame is None else frame
            self._rows.writerows([path, name, rank, row['label'], row['class'], row['score']] for rank, row in rows)
        target, *maps = self._targets[path]
        if frame is not None:
            self._video_of(path, target, drawn).write(drawn)
            return
        Image.fromarray(drawn).save(target)
        for key, place in zip(self._maps, maps, strict=True):
            (label_map(prediction[key], self._metadata) if key == 'classes' else saliency_map(prediction[key])).save(
                place
            )

    def _video_of(self, path: Path, target: Path, drawn: Array) -> Video:
        if self._video is None or self._video[0] != path:
            self._end_video()
            self._video = path, Video(target, drawn, count_and_rate(path)[1])
        return self._video[1]

    def _end_video(self) -> None:
        if self._video:
            self._video[1].close()
        self._video = None

    def close(self) -> None:
        """Complete all files; those of a run that was stopped hold what was predicted until then."""
        self._end_video()
        self._stack.close()


class Video:
    """A video ``.mp4`` of ``rate`` frames per second, all of the size of the ``first`` (H, W, 3)."""

    def __init__(self, target: Path, first: Array, rate: float) -> None:
        import cv2

        self._writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*CODEC), rate, first.shape[1::-1])
        if not self._writer.isOpened():
            raise UserError(f'{target} cannot be written: OpenCV has no encoder for {CODEC}, or the disk is full')

    def write(self, frame: Array) -> None:
        """Add a frame (H, W, 3) uint8 RGB."""
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))

    def close(self) -> None:
        """Complete the file."""
        self._writer.release()
