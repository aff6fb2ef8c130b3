"""``mmres2net predict``: the predictions of a checkpoint or an exported file for images, videos and cameras."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from mmres2net.errors import UserError
from mmres2net.flags import flags_of_predict
from mmres2net.predict.coco import CocoIds
from mmres2net.predict.inputs import count_and_rate, find_inputs, frames_of, is_stream
from mmres2net.predict.model import ExportedModel, Model, Prediction
from mmres2net.predict.outputs import describe, format_prediction
from mmres2net.predict.predictor import Predictor
from mmres2net.predict.results import Results

Array = npt.NDArray[Any]
DEFAULT_SCORE = 0.3


class Frame(NamedTuple):
    """An image of the input, or a frame of a video."""

    path: Path
    number: int | None  # of a frame, from 1; None for an image
    image: Array


def main(argv: Sequence[str] | None = None) -> int:
    """Predict by the flags in ``argv`` and print the predictions; return 1 if images were skipped, else 0.

    Raises:
        UserError: A mistake in the flags or the model, or no image that can be read.
    """
    args = flags_of_predict().parse_args(argv)
    if args.score is not None and not 0 <= args.score <= 1:
        raise UserError(f'--score {args.score}: choose 0 to 1')
    if args.ann and not args.out:
        raise UserError('--ann is for the file that --out writes: give --out DIR')
    out = Path(args.out).expanduser() if args.out else None
    paths = find_inputs(args.inputs, out)
    model = Predictor(
        args.model, config=args.config, options=args.cfg_options, device=args.device, precision=args.amp,
        threads=args.threads, allow_unsafe_checkpoint=args.allow_unsafe_checkpoint,
    ).model  # fmt: skip
    if model.metadata.source:
        print(f'model: {model.metadata.source}', file=sys.stderr)
    if args.batch > 1 and isinstance(model, ExportedModel):
        raise UserError(f'--batch {args.batch}: an exported file takes one image at a time')
    ids = _ids(args, model, paths)
    results = Results(out, paths, model.metadata, ids) if out else None
    try:
        return Job(args, model, paths, results, ids).run()
    finally:
        if results:
            results.close()


def _ids(args: argparse.Namespace, model: Model, paths: Sequence[Path]) -> CocoIds | None:
    if not args.ann:
        return None
    if model.metadata.task != 'detection':
        raise UserError(f'--ann is for detectors, and the model is for {model.metadata.task}')
    ids = CocoIds(args.ann, model.metadata.classes)
    for path in paths:
        ids.image(path)
    return ids


class Job:
    """Predict for all inputs and print, write and count as they come."""

    def __init__(
        self,
        args: argparse.Namespace,
        model: Model,
        paths: Sequence[Path],
        results: Results | None,
        ids: CocoIds | None,
    ) -> None:
        self.args, self.model, self.paths, self.results = args, model, paths, results
        least = model.metadata.score_threshold
        default = least if ids else max(DEFAULT_SCORE, least)  # metrics count all detections
        self.score = default if args.score is None else args.score
        self.skipped: dict[Path, str] = {}
        self.done = 0
        self.print: Callable[[str], None] = print

    def run(self) -> int:
        """Return the exit status; a UserError says that nothing could be predicted."""
        try:
            with_progress = _progress(self.paths) if sys.stderr.isatty() else None
            self.print = with_progress.write if with_progress is not None else print
            frames = self._frames()
            while batch := list(islice(frames, self.args.batch)):
                self._predict(batch)
                if with_progress is not None:
                    with_progress.update(len(batch))
            if with_progress is not None:
                with_progress.close()
        except KeyboardInterrupt:
            where = f'; {self.args.out} holds them' if self.results else ''
            print(f'\nstopped after {self.done} images{where}', file=sys.stderr)
            raise
        if not self.done:
            raise UserError(f'nothing was predicted: {next(iter(self.skipped.values()))}')
        if self.skipped:
            names = ', '.join(map(str, self.skipped))
            print(f'skipped {len(self.skipped)} of {len(self.paths)} images: {names}', file=sys.stderr)
        return 1 if self.skipped else 0

    def _frames(self) -> Iterator[Frame]:
        for path in self.paths:
            try:
                for number, image in enumerate(frames_of(path, apply_exif=self.model.metadata.apply_exif), start=1):
                    yield Frame(path, number if is_stream(path) else None, image)
            except UserError as error:
                self._skip(path, error)

    def _skip(self, path: Path, error: UserError) -> None:
        if path not in self.skipped:
            print(f'skipped {path}: {error}', file=sys.stderr)
        self.skipped[path] = str(error)

    def _predict(self, batch: list[Frame]) -> None:
        try:
            predictions = self.model.predict_batch([frame.image for frame in batch], score=self.score)
        except UserError as error:
            if len(batch) == 1:
                self._skip(batch[0].path, error)
            else:  # one of them is at fault
                for frame in batch:
                    self._predict([frame])
            return
        for frame, prediction in zip(batch, predictions, strict=True):
            self._report(frame, prediction)

    def _report(self, frame: Frame, prediction: Prediction) -> None:
        if self.results:
            self.results.add(*frame, prediction)
        self.done += 1
        content = describe(prediction, self.model.metadata)
        if self.args.json:
            number = {} if frame.number is None else {'frame': frame.number}
            self.print(json.dumps({'image': str(frame.path), **number, **content}))
        else:
            name = f'{frame.path}' if frame.number is None else f'{frame.path} frame {frame.number}'
            self.print(format_prediction(name, content))


def _progress(paths: Sequence[Path]) -> Any:
    """Return tqdm's bar over all frames, with rate and time left; None where tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    counts = [count_and_rate(path)[0] for path in paths]
    known = [count for count in counts if count is not None]
    return tqdm(total=sum(known) if len(known) == len(counts) else None, unit='image')
