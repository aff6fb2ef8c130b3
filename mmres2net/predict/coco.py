"""Detections as COCO JSON, written image by image: memory does not grow with their number."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmres2net.errors import UserError, reason_of
from mmres2net.files import atomic_path
from mmres2net.predict.masks import decode_mask
from mmres2net.predict.metadata import ExportMetadata
from mmres2net.predict.model import Prediction


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
    """A file of detections: with ``ids`` a list of results, else images from 1 on and category k + 1 for class k.

    It gets its name when it is closed; until then it lies beside it, hidden.
    """

    def __init__(self, path: Path, metadata: ExportMetadata, ids: CocoIds | None = None) -> None:
        self._metadata, self._ids, self._stack = metadata, ids, ExitStack()
        self._file = self._stack.enter_context(self._stack.enter_context(atomic_path(path)).open('w'))
        self._images = self._stack.enter_context(tempfile.TemporaryFile('w+'))  # noqa: SIM115 - the stack closes it  # noqa: SIM115 - the stack closes it
        self._count, self._seen, self._labels = 0, 0, len(metadata.classes)
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
        columns = (prediction[key].tolist() for key in ('boxes', 'scores', 'labels'))
        for index, (box, score, label) in enumerate(zip(*columns, strict=True)):
            width, height = box[2] - box[0], box[3] - box[1]
            mask = prediction['masks'][index] if 'masks' in prediction else None
            self._labels = max(self._labels, label + 1)
            entry: dict[str, Any] = {'image_id': number, 'score': score, 'bbox': [box[0], box[1], width, height]}
            entry['category_id'] = self._ids.categories[label] if self._ids else label + 1
            if not self._ids:
                area = width * height if mask is None else int(decode_mask(mask).sum())
                entry |= {'id': self._count + 1, 'area': area, 'iscrowd': 0}
            yield entry if mask is None else {**entry, 'segmentation': mask}

    def close(self) -> None:
        """Complete the file, which then has its name."""
        if not self._ids:
            self._file.write('], "images": [\n')
            self._images.seek(0)
            shutil.copyfileobj(self._images, self._file)
            names = [{'id': k + 1, 'name': self._metadata.class_name(k)} for k in range(self._labels)]
            self._file.write(f'], "categories": {json.dumps(names)}}}\n')
        else:
            self._file.write(']\n')
        self._stack.close()
