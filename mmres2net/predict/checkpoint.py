"""A checkpoint as a model that predicts: images go through the test pipeline of its config, as in testing."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from mmres2net.engine import source as sources
from mmres2net.engine.build import scope_of
from mmres2net.engine.config import configs_in, load_config, merge
from mmres2net.engine.embedded import embedded_config, registered_only
from mmres2net.engine.precision import to_float32
from mmres2net.engine.resume import BEST, POINTER, checkpoints_in
from mmres2net.engine.source import ModelSource, read_source
from mmres2net.engine.speed import speed_up
from mmres2net.engine.weights import safe_loading
from mmres2net.errors import UserError, reason_of
from mmres2net.predict.images import Array, encode_mask
from mmres2net.predict.model import check_finite
from mmres2net.predict.results import Prediction
from mmres2net.predict.runtimes import ExportMetadata, check_threads
from mmres2net.text import join_some
from mmres2net.weights.fetching import fetch_checkpoint
from mmres2net.weights.reading import read_checkpoint

TASKS = {  # the base class of the models, and where a sample has their prediction
    'detection': ('BaseDetector', 'pred_instances'),
    'segmentation': ('BaseSegmentor', 'pred_sem_seg'),
    'classification': ('BaseClassifier', 'pred_score'),
}
PRECISIONS = {'fp16': torch.float16, 'bf16': torch.bfloat16}
NAME_IT = 'name its config: --config CONFIG'


def load_checkpoint(
    name: str, config: str | None, options: dict[str, Any] | None, device: str | None, precision: str | None,
    threads: int | None, *, allow_pickle: bool,
) -> 'CheckpointModel':  # fmt: skip
    """Return the model of a checkpoint; the arguments are those of :class:`mmres2net.Predictor`."""
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if precision is not None and precision not in PRECISIONS:
        raise UserError(f'precision {precision!r}: choose from {", ".join(PRECISIONS)}')
    if precision == 'fp16' and not device.startswith('cuda'):
        raise UserError(f'--amp fp16 needs a GPU, and the model runs on {device}: choose bf16, or leave it out')
    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    if config is None and name.endswith('.py'):
        raise UserError(f'{name} is a config: name its checkpoint, and the config with --config {name}')
    path = checkpoint_of(name)
    with safe_loading(allow_pickle=allow_pickle):
        if config is not None:
            source = read_source(config, path, options=options, allow_pickle=allow_pickle)
            return CheckpointModel(source, f'{path} with the config {config}', device, precision)
        content = read_checkpoint(fetch_checkpoint(path), allow_pickle=allow_pickle)
        return _with_own_config(path, content, options, device, precision)


def _with_own_config(
    path: str, content: dict[str, Any], options: dict[str, Any] | None, device: str, precision: str | None
) -> 'CheckpointModel':
    guard: AbstractContextManager[None] = registered_only()
    origin = 'the config in it'
    try:
        cfg = embedded_config(content)
    except UserError as error:
        # Only of a work dir: in other folders it may be a program of any kind.
        folder = Path(path).parent
        found = configs_in(folder) if (folder / POINTER).is_file() else []
        if len(found) != 1:
            names = join_some(file.name for file in found)
            why = f'its work dir has {names}' if found else 'it is in no work dir with a config'
            raise UserError(f'{path}: {error}; {why}: {NAME_IT}') from error
        cfg, guard, origin = load_config(str(found[0])), nullcontext(), f'the config beside it, {found[0]}'
    merge(cfg, options or {})
    with guard:
        try:
            source = sources.make_source(cfg, content, Path(path).stem, path)
            return CheckpointModel(source, f'{path} with {origin}', device, precision)
        except UserError as error:
            raise UserError(f'{path} with {origin}: {error}') from error


def checkpoint_of(name: str) -> str:
    """Return the checkpoint that ``name`` means: itself or, of a work dir, the best one, else the newest."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name
    best = sorted(folder.glob(BEST), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [path for path in [*best, *checkpoints_in(folder)] if path.is_file()]
    if not found:
        raise UserError(f'{folder}: no checkpoint in this folder (best_*.pth, epoch_N.pth, iter_N.pth)')
    return str(found[0])


class CheckpointModel:
    """A model with its weights, which runs in PyTorch; the model of ``source`` is moved and made faster in place."""

    def __init__(self, source: ModelSource, origin: str, device: str, precision: str | None) -> None:
        self._cfg = source.cfg
        self.metadata = _metadata_of(source, f'{origin}, on {device}{f" in {precision}" if precision else ""}')
        sources.channel_order_of(source.cfg)
        self._steps = sources.build_steps(source.cfg)
        self._model = sources.place_on(source.model, device)
        if precision is None:
            speed_up(self._model, device)
        else:
            _set_precision(self._model, torch.device(device).type, PRECISIONS[precision])

    def predict(self, images: Sequence[Array], score: float) -> list[Prediction]:
        """Return what is found in each image."""
        with scope_of(self._cfg):
            inputs = [
                sources.run_steps(self._steps, sources.loaded_results(self._cfg, image), 'an image') for image in images
            ]
            # Images of one size together: padded to a common size, an image would not be predicted as it is alone.
            groups: dict[tuple[int, ...], list[int]] = {}
            for index, item in enumerate(inputs):
                groups.setdefault(tuple(item['inputs'][0].shape), []).append(index)
            done: dict[int, Prediction] = {}
            for group in groups.values():
                samples = self._run([inputs[index] for index in group])
                done |= {i: self._prediction(sample, score) for i, sample in zip(group, samples, strict=True)}
        return [done[index] for index in range(len(images))]

    def _run(self, items: Sequence[dict[str, Any]]) -> list[Any]:
        batch = {key: [item[key][0] for item in items] for key in ('inputs', 'data_samples')}
        try:
            with torch.no_grad():
                return self._model.test_step(batch)
        except Exception as error:  # a model is a program
            raise UserError(f'the model fails: {reason_of(error)}') from error

    def _prediction(self, sample: Any, score: float) -> Prediction:
        base, key = TASKS[self.metadata.task]
        found = sample.get(key)
        if found is None:
            raise UserError(f'{type(self._model).__name__} predicts {join_some(sample.keys())}, which is not supported')
        if base == 'BaseDetector':
            return _detections(found, score)
        out = {'scores': _array(found)} if base == 'BaseClassifier' else {'classes': _array(found.data[0].long())}
        if 'saliency' in self.metadata.outputs:
            out['saliency'] = _array(sample.seg_logits.data[0])
        check_finite(out)
        return out


def _set_precision(model: Any, device: str, precision: torch.dtype) -> None:
    """Let the backbone and the neck compute in ``precision``: heads need the range of float32, and so do operators."""
    extract = model.extract_feat

    def extract_feat(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, precision):
            return to_float32(extract(*args, **kwargs))

    model.extract_feat = extract_feat


def _detections(found: Any, score: float) -> Prediction:
    found = found[found.scores >= score]
    found = found[found.scores.argsort(descending=True, stable=True)]
    found.boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    out: Prediction = {key: _array(found[key]) for key in ('boxes', 'scores', 'labels')}
    if 'masks' in found:
        out['masks'] = [encode_mask(mask.cpu().numpy()) for mask in found.masks]
    return out


def _array(tensor: torch.Tensor) -> Array:
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()


def task_of_model(kind: Any) -> str | None:
    """Return the task of a class of models, a key of :data:`TASKS`; None if it is of none of them."""
    bases = [base.__name__ for base in getattr(kind, '__mro__', ())]
    return next((task for task, (base, _) in TASKS.items() if base in bases), None)


def _metadata_of(source: ModelSource, origin: str) -> ExportMetadata:
    task = task_of_model(type(source.model))
    if task is None:
        what = 'only detectors of mmdet, segmentors of mmseg, classifiers of mmpretrain predict'
        raise UserError(f'{type(source.model).__name__}: {what}')
    head = getattr(source.model, 'decode_head', None)
    single = getattr(head[-1] if isinstance(head, torch.nn.ModuleList) else head, 'out_channels', 0) == 1
    classes = ('background', *source.classes) if single and len(source.classes) == 1 else source.classes
    outputs = ('classes', *(['saliency'] if single else [])) if task == 'segmentation' else ()
    exif = sources.applies_exif(source.cfg)
    return ExportMetadata(task, outputs, origin, classes, source.palette, apply_exif=exif)
