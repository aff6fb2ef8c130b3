"""``mmres2net predict``: the predictions of a checkpoint or an exported file for images, videos and cameras."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mmres2net.errors import UserError
from mmres2net.flags import parse
from mmres2net.predict.images import Array
from mmres2net.predict.inputs import Skipped, count_and_rate, find_inputs, frames_of, is_stream
from mmres2net.predict.model import ExportedModel, Predictor
from mmres2net.predict.results import CocoIds, Prediction, Results, describe, format_prediction
from mmres2net.predict.shards import predict_by_ray, predict_shard

DEFAULT_SCORE = 0.3


class Frame(NamedTuple):
    """An image of the input, or a frame of a video."""

    path: Path
    number: int | None  # of a frame, from 1; None for an image
    image: Array


def main(argv: Sequence[str] | None = None) -> int:
    """Predict by the flags in ``argv`` and print the predictions; return 1 if images were skipped, else 0."""
    args = parse('predict', argv)
    if args.score is not None and not 0 <= args.score <= 1:
        raise UserError(f'--score {args.score}: choose 0 to 1')
    if args.ann and not args.out:
        raise UserError('--ann is for the file that --out writes: give --out DIR')
    out = Path(args.out).expanduser() if args.out else None
    paths = find_inputs(args.inputs, out)
    if args.shard or args.ray:
        flag = '--ray' if args.ray else '--shard'
        if not out or args.json:
            raise UserError(f'{flag} writes files that are merged later: give --out DIR, and leave out --json')
        if stream := next((path for path in paths if is_stream(path)), None):
            raise UserError(f'{flag} is for images, and {stream} is a video or a camera')
        status = predict_by_ray(args, paths, _start) if args.ray else _start(args, paths)(args.shard)
        print(f'when all shards are done: mmres2net merge {out}', file=sys.stderr)
        return status
    model, ids = _load(args, paths)
    skipped = Skipped()
    with ExitStack() as stack:
        results = stack.enter_context(Results(out, paths, model.metadata, ids)) if out else None
        done = _run(args, model, paths, results, skipped)
    return skipped.status(done, len(paths))


def _load(args: argparse.Namespace, paths: Sequence[Path]) -> tuple[Predictor, CocoIds | None]:
    """Return the model and the ids of ``--ann``, and set the score that the model needs where none is given."""
    model = Predictor(
        args.model, config=args.config, options=args.cfg_options, device=args.device, precision=args.amp,
        threads=args.threads, allow_unsafe_checkpoint=args.allow_unsafe_checkpoint,
    )  # fmt: skip
    if model.metadata.source:
        print(f'model: {model.metadata.source}', file=sys.stderr)
    if args.batch > 1 and isinstance(model.model, ExportedModel):
        raise UserError(f'--batch {args.batch}: an exported file takes one image at a time')
    ids = None
    if args.ann:
        if model.metadata.task != 'detection':
            raise UserError(f'--ann is for detectors, and the model is for {model.metadata.task}')
        ids = CocoIds(args.ann, model.metadata.classes)
        for path in paths:
            ids.image(path)
    if args.score is None:  # metrics count all detections
        args.score = max(0 if ids else DEFAULT_SCORE, model.metadata.score_threshold)
    return model, ids


def _start(args: argparse.Namespace, paths: Sequence[Path]) -> Callable[[tuple[int, int]], int]:
    """Load the model, and return what predicts shards with it."""
    model, _ = _load(args, paths)
    return lambda shard: predict_shard(args, shard, paths, model.metadata, partial(_predictions, args, model))


def _run(
    args: argparse.Namespace, model: Predictor, paths: Sequence[Path], results: Results | None, skipped: Skipped
) -> int:
    """Predict, write and print one image after another; return how many were predicted."""
    done, bar = 0, _progress(paths) if sys.stderr.isatty() else None
    try:
        for frame, prediction in _predictions(args, model, paths, skipped):
            if results:
                results.add(*frame, prediction)
            done += 1
            (bar.write if bar is not None else print)(_text(frame, prediction, model, args.json))
            if bar is not None:
                bar.update()
    except KeyboardInterrupt:
        where = f'; {args.out} holds them' if results else ''
        print(f'\nstopped after {done} images{where}', file=sys.stderr)
        raise
    if bar is not None:
        bar.close()
    return done


def _predictions(
    args: argparse.Namespace, model: Predictor, paths: Sequence[Path], skipped: Skipped
) -> Iterator[tuple[Frame, Prediction]]:
    frames = _frames(model, paths, skipped)
    batches = iter(lambda: list(islice(frames, args.batch)), [])
    with ThreadPoolExecutor(1) as pool:  # reads a batch while the model works on the one before
        coming = pool.submit(next, batches, None)
        while batch := coming.result():
            coming = pool.submit(next, batches, None)
            yield from _predict(model, batch, args.score, skipped)


def _frames(model: Predictor, paths: Sequence[Path], skipped: Skipped) -> Iterator[Frame]:
    for path in paths:
        try:
            for number, image in enumerate(frames_of(path, apply_exif=model.metadata.apply_exif), start=1):
                yield Frame(path, number if is_stream(path) else None, image)
        except UserError as error:
            skipped.add(path, error)


def _predict(
    model: Predictor, batch: Sequence[Frame], score: float, skipped: Skipped
) -> Iterator[tuple[Frame, Prediction]]:
    try:
        yield from zip(batch, model([frame.image for frame in batch], score=score), strict=True)
    except UserError as error:
        if len(batch) == 1:
            skipped.add(batch[0].path, error)
            return
        for frame in batch:  # one of them is at fault
            yield from _predict(model, [frame], score, skipped)


def _text(frame: Frame, prediction: Prediction, model: Predictor, as_json: bool) -> str:
    content = describe(prediction, model.metadata)
    if as_json:
        number = {} if frame.number is None else {'frame': frame.number}
        return json.dumps({'image': str(frame.path), **number, **content})
    return format_prediction(f'{frame.path}' + (f' frame {frame.number}' if frame.number else ''), content)


def _progress(paths: Sequence[Path]) -> Any:
    """Return tqdm's bar over all frames, with rate and time left."""
    from tqdm import tqdm

    counts = [count_and_rate(path)[0] for path in paths]
    known = [count for count in counts if count is not None]
    return tqdm(total=sum(known) if len(known) == len(counts) else None, unit='image')
