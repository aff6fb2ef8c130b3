"""An exported file compared with its model, in the file's own runtime, on image files.

What is expected comes from the config's own test pipeline and from the model in its OpenMMLab library. None of the code
that writes or runs the file takes part in it.

Results of two runtimes differ by rounding, and rounding decides where two candidates are equally good: which class a
pixel has, which of two boxes suppresses the other, which one is the last of a full list. Such decisions are recognized
by their margin and do not count. Everything else does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.engine.build import scope_of
from mmres2net.engine.source import ModelSource
from mmres2net.errors import UserError, reason_of
from mmres2net.export.graphs import Graph
from mmres2net.export.preprocess import run_pipeline
from mmres2net.predict.images import apply_transforms, decode_mask, paste_mask, read_image
from mmres2net.predict.inputs import find_files
from mmres2net.predict.runtimes import ExportMetadata, Session

Array = npt.NDArray[Any]
Results = dict[str, Any]
COUNT = 2  # images
SMALLER = (0.75, 0.9)  # height and width of the second image relative to the first: another size and another ratio
LEVELS = 1.0  # of 255: the runner rounds resized pixels, which not all pipelines do
ALTERNATIVES = 16  # a tie shows in each with a chance of about one half
NOISE, SCORE_NOISE = 0.01, 0.001  # of features relative to their std, and of scores; times the tolerance
Detections = Mapping[str, Any]
MASK_FACTOR = 10  # pixels at the border of a small mask count for more than the last digits of a feature
FAR = 1e9  # pixels between detections that are not equal


@dataclass(frozen=True)
class Comparison:
    """One comparison."""

    part: str  # what was compared
    difference: float  # the largest one
    tolerance: float  # the largest difference allowed
    remark: str = ''  # the unit of the difference, and what else there is to say

    @property
    def passed(self) -> bool:
        """Whether the difference is small enough; NaN is not."""
        return bool(self.difference <= self.tolerance)


@dataclass(frozen=True)
class Verifier:
    """An exported file beside its model."""

    source: ModelSource  # the model
    graph: Graph  # what was written
    session: Session  # the open file
    tolerance: float  # of outputs, relative, see the comparisons below

    def run(self, paths: Sequence[Path], copies: Sequence[Path]) -> Iterator[Comparison]:
        """Compare the input of the network for image files, and the outputs for copies of them, in their own size.

        The last copy is left for the batch, which only files that take batches are given. A UserError says that the
        model does not run on an image of this size.
        """
        for path in dict.fromkeys(paths):
            yield self._input(path)
        for path in copies[:-1]:
            yield from self._outputs([path])
        if self.session.metadata.task != 'detection':
            yield from self._outputs([copies[0], copies[-1]])

    def _input(self, path: Path) -> Comparison:
        """Compare what the network gets for an image file, in levels of 255."""
        expected = self._reference_input(run_pipeline(self.source.cfg, path))[0]
        metadata, preprocess = self.session.metadata, self.graph.module.preprocess
        image = apply_transforms(read_image(path, apply_exif=metadata.apply_exif), metadata.transforms)
        with torch.no_grad():
            got = preprocess(torch.from_numpy(channels_first(image)[None]))[0]
        name = f'input of {path.name}'
        if metadata.task == 'backbone':  # which is exported without padding
            expected = expected[:, : got.shape[1], : got.shape[2]]
        if expected.shape != got.shape:
            return Comparison(name, np.inf, LEVELS, f'shape {tuple(got.shape)} instead of {tuple(expected.shape)}')
        return Comparison(name, float(((expected - got).abs() * preprocess.std[0]).max()), LEVELS, 'levels of 255')

    def _reference_input(self, data: Results) -> Tensor:
        with scope_of(self.source.cfg), torch.no_grad():
            return self.source.model.data_preprocessor(data, False)['inputs']

    def _outputs(self, paths: Sequence[Path]) -> Iterator[Comparison]:
        metadata = self.session.metadata
        images = np.stack([channels_first(read_image(path)) for path in paths])
        size = (images.shape[2], images.shape[3])
        title = f'{size[0]}x{size[1]}' + (', batch' if len(paths) > 1 else '')
        try:
            outputs = self.session.run(images)
        except Exception as error:  # runtimes raise whatever they like
            yield Comparison(f'{title}: runs', np.inf, 0.0, f'the runtime stops: {reason_of(error)[:300]}')
            return
        results = dict(zip(metadata.outputs, outputs, strict=True))
        for index, path in enumerate(paths):
            single = metadata.task == 'detection'  # its outputs have no batch dimension
            got = results if single else {name: value[index] for name, value in results.items()}
            place = f' {index + 1}' if len(paths) > 1 else ''
            for row in self._compare(path, size, got):
                yield replace(row, part=f'{title}{place}: {row.part}')

    def _compare(self, path: Path, size: tuple[int, int], got: Results) -> Iterator[Comparison]:
        data, metadata = run_pipeline(self.source.cfg, path, skip_geometry=True), self.session.metadata
        try:
            expected = self._reference(data, size)
        except Exception as error:
            raise UserError(f'the model does not run on an image of {size[0]}x{size[1]}: {reason_of(error)}') from error
        if metadata.task != 'detection':
            for name, value in expected.items():
                if name == 'classes':
                    yield compare_classes(expected['logits'], value, got[name], self.tolerance)
                else:
                    yield compare_maps(name, value, got[name], self.tolerance)
            return
        if 'masks' in got:
            pairs = zip(got['masks'], got['boxes'], strict=True)
            masks = [decode_mask(paste_mask(*pair, size, metadata.mask_threshold)) for pair in pairs]
            got = {**got, 'masks': masks}
        limits = (self.tolerance, metadata.score_threshold, int(self.source.model.roi_head.test_cfg.max_per_img))
        yield from compare_detections(expected, got, self._alternatives(data), size, *limits)

    def _reference(self, data: Results, size: tuple[int, int]) -> Results:
        """Return the outputs of the model by name, as its OpenMMLab library computes them."""
        model, task = self.source.model, self.session.metadata.task
        with scope_of(self.source.cfg), torch.no_grad():
            if task == 'backbone':
                features = model.backbone(self._reference_input(data)[:, :, : size[0], : size[1]])
                features = features if isinstance(features, tuple | list) else (features,)
                names = self.session.metadata.outputs
                return {name: feature[0].numpy() for name, feature in zip(names, features, strict=True)}
            sample = model.test_step(data)[0]
        if task == 'classification':
            return {'scores': sample.pred_score.numpy()}
        if task == 'segmentation':
            return {'logits': sample.seg_logits.data.numpy(), 'classes': sample.pred_sem_seg.data[0].numpy()}
        return _detections(sample.pred_instances)

    def _alternatives(self, data: Results) -> Iterator[Results]:
        """Yield the detections of the model with features and scores changed by as little as rounding."""
        model, generator = self.source.model, torch.Generator().manual_seed(0)

        def noise(x: Tensor, size: float) -> Tensor:
            return size * self.tolerance * torch.randn(x.shape, generator=generator)

        # Scores near 1 are rounded more coarsely than the logits that they come from, and they order the boxes.
        def change_sigmoid(module: Any, args: Any, logits: Tensor) -> Tensor:
            return (logits.double().sigmoid() + noise(logits, SCORE_NOISE)).logit(eps=1e-12).float()

        def change_softmax(module: Any, args: Any, logits: Tensor) -> Tensor:
            return (logits.double().softmax(1) + noise(logits, SCORE_NOISE)).clamp(min=1e-12).log().float()

        layers = ((model.rpn_head.rpn_cls, change_sigmoid), (model.roi_head.bbox_head.fc_cls, change_softmax))
        with scope_of(self.source.cfg), torch.no_grad(), ExitStack() as hooks:
            for layer, change in layers:
                hooks.callback(layer.register_forward_hook(change).remove)
            batch = model.data_preprocessor(data, False)
            features, samples = model.extract_feat(batch['inputs']), batch['data_samples']
            for _ in range(ALTERNATIVES):
                noisy = tuple(x + x.std() * noise(x, NOISE) for x in features)
                proposals = model.rpn_head.predict(noisy, samples, rescale=False)
                yield _detections(model.roi_head.predict(noisy, proposals, samples, rescale=True)[0])


def _detections(instances: Any) -> Results:
    out = {'boxes': instances.bboxes, 'scores': instances.scores, 'labels': instances.labels}
    if 'masks' in instances:
        out['masks'] = instances.masks
    return {name: value.numpy() for name, value in out.items()}


def channels_first(image: Array) -> Array:
    """Return (3, H, W) for an image (H, W, 3)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def make_copies(
    paths: Sequence[Path], metadata: ExportMetadata, size: tuple[int, int] | None, folder: Path
) -> list[Path]:
    """Write copies of images into ``folder``, of two sizes, and the first one mirrored as the last; return them.

    ``size`` is the height and width of the first; None: those of the image behind the transforms of testing.
    """
    images = [read_image(path) for path in (list(paths) * COUNT)[:COUNT]]
    height, width = size or apply_transforms(images[0], metadata.transforms).shape[:2]
    sizes = [(width, height), (max(int(width * SMALLER[1]), 1), max(int(height * SMALLER[0]), 1))]
    pixels = [cv2.resize(image, size) for image, size in zip(images, sizes, strict=True)]
    copies = [folder / f'copy{index}.png' for index in range(COUNT + 1)]
    for path, image in zip(copies, [*pixels, pixels[0][:, ::-1]], strict=True):
        Image.fromarray(image).save(path)
    return copies


def images_for(named: Sequence[str], folder: Path) -> tuple[list[Path], str]:
    """Return image files to compare on, those that are ``named`` or scenes drawn into ``folder``, and what they are."""
    if paths := find_files(named)[:COUNT]:
        return paths, ', '.join(path.name for path in paths)
    paths = [folder / f'scene{index}.png' for index in range(COUNT)]
    for index, path in enumerate(paths):
        Image.fromarray(draw_scene(DEFAULT_SPEC, 'val', index).image).save(path)
    return paths, 'drawn scenes'


def fault_of(rows: Sequence[Comparison], task: str) -> str:
    """Return why a file is not verified; an empty string where all comparisons passed and something was compared."""
    failed = [row for row in rows if not row.passed]
    if failed:
        return f'{len(failed)} of {len(rows)} comparisons are beyond their tolerance'
    if task == 'detection' and not any('boxes' in row.part for row in rows):
        what = 'the model detects nothing that could be compared in these images: name others with --images'
        return f'{what}, or lower the threshold with --cfg-options model.test_cfg.rcnn.score_thr=...'
    return ''


def compare_maps(name: str, expected: Array, got: Array, tolerance: float) -> Comparison:
    """Compare two maps by their largest difference, relative to the largest value."""
    if expected.shape != got.shape:
        return Comparison(name, np.inf, tolerance, f'shape {got.shape} instead of {expected.shape}')
    scale = float(np.abs(expected).max()) or 1.0
    return Comparison(name, float(np.abs(expected - got).max()) / scale, tolerance, 'of the largest value')


def compare_classes(scores: Array, expected: Array, got: Array, tolerance: float) -> Comparison:
    """Compare the classes of pixels (...) where rounding does not decide.

    It does where two of the expected ``scores`` (K, ...) are closer than ``tolerance``, relative to the largest one.
    """
    if expected.shape != got.shape:
        return Comparison('classes', np.inf, 0.0, f'shape {got.shape} instead of {expected.shape}')
    best = np.partition(scores, -2, axis=0)[-2:] if len(scores) > 1 else np.stack([scores[0] * 0 - np.inf, scores[0]])
    decided = best[1] - best[0] > 2 * tolerance * np.abs(scores).max()
    wrong = float((expected != got)[decided].mean()) if decided.any() else 0.0
    return Comparison('classes', wrong, 0.0, f'of {int(decided.sum())} pixels that rounding does not decide')


def compare_detections(
    expected: Detections, got: Detections, alternatives: Iterable[Detections], size: tuple[int, int], tolerance: float,
    score_threshold: float, max_detections: int,
) -> Iterator[Comparison]:  # fmt: skip
    """Compare detections one by one.

    Two detections are equal if label, box, score and mask are within the tolerance. A detection without an equal is a
    fault unless rounding decides about it: its score is at the threshold or at the end of a full list, or the model
    itself finds it (or does not find it) when its features are changed by as little as rounding.

    Args:
        expected, got: ``boxes`` (n, 4), ``scores``, ``labels`` and, optionally, ``masks`` (n, H, W) bool.
        alternatives: Detections of the model with slightly changed features; as many are taken as needed.
        size: Height and width of the image.
        tolerance: Of scores, and of boxes relative to the image's longer side; ten times it of 1 - mask IoU.
        score_threshold, max_detections: Which detections are given at all.
    """
    pairs = _equal_pairs(expected, got, size, tolerance)
    lost = set(range(len(expected['scores']))) - {i for i, _ in pairs}
    extra = set(range(len(got['scores']))) - {j for _, j in pairs}
    count = len(lost) + len(extra)

    def cut_off(score: float, other: Detections) -> bool:
        full = len(other['scores']) >= max_detections and score <= float(other['scores'].min()) + tolerance
        return full or score <= score_threshold + tolerance

    lost = {i for i in lost if not cut_off(float(expected['scores'][i]), got)}
    extra = {i for i in extra if not cut_off(float(got['scores'][i]), expected)}
    for other in alternatives if lost or extra else ():
        lost &= {i for i, _ in _equal_pairs(expected, other, size, tolerance)}
        extra -= {i for i, _ in _equal_pairs(got, other, size, tolerance)}
        if not lost and not extra:
            break
    faults = len(lost) + len(extra)
    remark = f'without an equal, of {len(expected["scores"])}, and {count - faults} by rounding'
    yield Comparison('detections', float(faults), 0.0, remark)
    if pairs:
        ours, theirs = (list(side) for side in zip(*pairs, strict=True))
        boxes = np.abs(expected['boxes'][ours] - got['boxes'][theirs]).max() / max(size)
        yield Comparison('boxes', float(boxes), tolerance, f"of the image's longer side, {len(pairs)} equal ones")
        yield Comparison('scores', float(np.abs(expected['scores'][ours] - got['scores'][theirs]).max()), tolerance)
    if pairs and 'masks' in expected:
        worst = min(_iou(expected['masks'][i], got['masks'][j]) for i, j in pairs)
        yield Comparison('1 - mask IoU', 1 - worst, MASK_FACTOR * tolerance, 'the worst')


def _equal_pairs(one: Detections, other: Detections, size: tuple[int, int], tolerance: float) -> list[tuple[int, int]]:
    """Return pairs of equal detections, each detection once, as many as there are."""
    if not len(one['scores']) or not len(other['scores']):
        return []
    distances = np.abs(one['boxes'][:, None] - other['boxes'][None]).max(2)
    equal = (distances <= tolerance * max(size)) & (one['labels'][:, None] == other['labels'])
    equal &= np.abs(one['scores'][:, None] - other['scores']) <= tolerance
    for i, j in np.argwhere(equal) if 'masks' in one else ():
        equal[i, j] = 1 - _iou(one['masks'][i], other['masks'][j]) <= MASK_FACTOR * tolerance
    pairs = zip(*linear_sum_assignment(np.where(equal, distances, FAR)), strict=True)
    return [(int(i), int(j)) for i, j in pairs if equal[i, j]]


def _iou(one: Array, other: Array) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
