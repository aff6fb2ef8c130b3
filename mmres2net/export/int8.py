"""``export --int8``: an exported file with 8-bit integers in its convolutions, and how much of the metric that costs.

The ranges of values are those of training images behind the test pipeline. Preprocessing, last layers and what turns
their outputs into boxes stay in floating point. NNCF's accuracy control is not used: it evaluates some images for each
of a hundred groups of layers, then all images for each group that it takes back, which is days for a detector on a CPU,
and it would choose the groups by the images on which the drop is measured.
"""

import logging
import os
import re
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from torch.utils.data import ConcatDataset, Subset
from tqdm import tqdm

from mmres2net.compare.comparison import Bootstrap
from mmres2net.compare.metrics import Arrays, measure
from mmres2net.data.check.before import check_before_training
from mmres2net.data.layout import datasets_of
from mmres2net.engine.build import build_dataset, building, scope_of
from mmres2net.engine.run import embed
from mmres2net.engine.source import ModelSource, channel_order_of, image_steps
from mmres2net.errors import RunError, UserError, reason_of
from mmres2net.evaluation.per_image import evaluated, record_of
from mmres2net.export.formats import save
from mmres2net.predict.model import ExportedModel
from mmres2net.predict.runtimes import Array, open_file

FOLDER, MAX_DROP, SAMPLES = 'int8', 0.003, 2000  # SAMPLES: of the bootstrap
CALIBRATION, LEAST = 300, 2  # training images that are taken at most, and images that there must be of either kind
PACKAGES = {'onnx': ('onnx', 'onnxruntime'), 'openvino': ('onnx', 'openvino', 'nncf')}
# Nodes that stay in floating point; names without a slash are those of shapes and constants.
FLOAT = r'[^/]|/(preprocess|conv_seg)/|/proposals/(?!rpn_conv)|/(boxes|masks)/(?!layers|regions/shared)|.*/fc_(cls|reg)'


class Images(NamedTuple):
    """The images of a config: those to calibrate on, behind the test pipeline, and a loader of those to evaluate on."""

    cfg: Any
    training: Subset[Any]
    testing: Any

    def pixels(self, sample: Any) -> Array:
        """Return (1, 3, H, W) uint8 RGB for a ``sample`` of a test pipeline."""
        image = sample['inputs'] if channel_order_of(self.cfg) == 'rgb' else sample['inputs'].flip(0)
        return image.round().to(torch.uint8).numpy()[None]


def check_flags(args: Namespace) -> None:
    """Check ``--int8`` and ``--max-drop``; a UserError says what does not fit, or which package is missing."""
    if args.max_drop is not None and not (args.int8 and 0 <= args.max_drop <= 1):
        raise UserError(f'--max-drop {args.max_drop}: choose 0 to 1, where 0.003 is 0.3 points in percent, with --int8')
    if args.int8 and (args.to not in PACKAGES or args.random or args.part != 'whole'):
        given = f'--int8 --to {args.to} --part {args.part}' + ' --random' * args.random
        raise UserError(f'{given}: choose --to onnx or openvino, and a trained model as a whole, which has a metric')
    missing = [name for name in PACKAGES.get(args.to, ()) if find_spec(name) is None]
    if args.int8 and missing:
        raise UserError(f'--int8 --to {args.to} needs packages that are not there: pip install {" ".join(missing)}')


def read_images(source: ModelSource, args: Namespace) -> Images:
    """Return the images of a config; a UserError says what of them is missing, or has an error."""
    cfg = source.cfg
    if source.images:
        way = 'name the config in the work dir of its training, which has the training images too'
        raise UserError(f'--int8 --data {args.data}: of own data only test images are known; instead of --data, {way}')
    if absent := [name for name in ('train_dataloader', 'test_dataloader', 'test_evaluator') if not cfg.get(name)]:
        raise UserError(f'--int8: {args.config} has no {" and no ".join(absent)}')
    if cfg.get('embedded_data') and not args.data:
        embed(cfg.embedded_data)
    check_before_training(cfg, ['train', 'test'])
    nodes = [{**node, 'pipeline': image_steps(cfg)} for node in datasets_of(cfg, 'train')]
    training = ConcatDataset[Any]([build_dataset(cfg, node) for node in nodes])
    with scope_of(cfg), building('the test data or metrics of this config'):
        testing = Runner.build_dataloader(cfg.test_dataloader)
        Evaluator(cfg.test_evaluator).dataset_meta = testing.dataset.metainfo
    count, tested = len(training), len(testing.dataset)
    if min(count, tested) < LEAST:
        raise UserError(f'--int8: of {count} training and {tested} test images, {LEAST} or more of each are needed')
    if not {'gt_instances', 'gt_sem_seg', 'gt_label'} & {*testing.dataset[0]['data_samples'].keys()}:
        raise UserError(f'--int8: the test images of {args.config} are not annotated, so they show no drop')
    chosen = np.random.default_rng(0).choice(count, min(CALIBRATION, count), replace=False)
    return Images(cfg, Subset(training, sorted(chosen.tolist())), testing)


def quantize(path: Path, images: Images, max_drop: float | None) -> str:
    """Write the file at ``path`` with 8-bit integers into :data:`FOLDER` beside it, and print the drop of its metrics.

    Return why the drop is too large, above ``max_drop`` of 1; an empty string if it is not.
    """
    folder, before = path.with_name(FOLDER), open_file(path)  # a quantized model still reads from the file at `path`
    folder.mkdir()
    title, tested = f'{len(images.training)} training images', len(images.testing.dataset)
    print(f'calibrating on {title}', flush=True)
    with ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)  # tables of classes, and advice of quantizers
        try:
            model = (_quantized_onnx if path.suffix == '.onnx' else _quantized_openvino)(path, images)
        except Exception as error:  # quantizers raise whatever they like
            raise RunError(f'this model cannot be quantized: {reason_of(error)}') from error
        save(model, before.metadata, draft := folder / f'draft-{path.name}')
        drops = measure_drops([evaluate(ExportedModel(one), images) for one in (before, open_file(draft))])
    for name, (fp32, int8, drop, low, high) in drops.items():
        print(f'{name}: fp32 {fp32:.4f}, int8 {int8:.4f}, drop {drop:.4f} [{low:.4f}, {high:.4f}]')
    print(f'measured on {tested} test images; 95 % intervals by a paired bootstrap over images')
    limit = MAX_DROP if max_drop is None else max_drop
    if lost := [f'{name} by {values[2]:.4f}' for name, values in drops.items() if not values[2] <= limit]:
        return f'8-bit integers lower {" and ".join(lost)}; --max-drop {limit} is allowed'
    facts = {'calibration': f'{title} of {Path(images.cfg.filename).name}', 'test_images': tested, 'drop': drops}
    save(model, replace(before.metadata, int8=facts), folder / path.name)
    return ''


def _quantized_onnx(path: Path, images: Images) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    draft, samples = path.with_name(FOLDER) / 'quantized.onnx', iter(images.training)
    kept = [node.name for node in onnx.load(str(path)).graph.node if re.match(FLOAT, node.name)]
    reader = SimpleNamespace(get_next=lambda: next(({'image': images.pixels(one)} for one in samples), None))
    unsigned = QuantType.QUInt8  # with signed activations its kernels are slower than those of fp32
    quantize_static(str(path), str(draft), reader, per_channel=True, activation_type=unsigned, nodes_to_exclude=kept)
    return onnx.load(str(draft))


def _quantized_openvino(path: Path, images: Images) -> Any:
    os.environ.setdefault('NNCF_CI', '1')  # else it reports to Google Analytics, unasked
    import nncf
    import openvino

    model = openvino.Core().read_model(path)
    names = [node.get_friendly_name() for node in model.get_ops()]
    kept = nncf.IgnoredScope(names=[name for name in names if re.match(FLOAT, name)], validate=False)
    data = nncf.Dataset(images.training, images.pixels)
    return nncf.quantize(model, data, subset_size=len(images.training), ignored_scope=kept)


def evaluate(model: ExportedModel, images: Images) -> Arrays:
    """Return what the config's metrics keep of a model on the test images, as arrays of the comparison."""
    records: list[Any] = []
    with scope_of(images.cfg):
        evaluator = Evaluator(images.cfg.test_evaluator)
    evaluator.dataset_meta = images.testing.dataset.metainfo
    classes = list(evaluator.dataset_meta.get('classes') or ())
    for batch in tqdm(images.testing, 'evaluating', disable=None):
        pairs = zip(batch['inputs'], batch['data_samples'], strict=True)
        samples = [_predicted(model, images.pixels({'inputs': one}), sample) for one, sample in pairs]
        evaluator.process(samples, batch)
        records += [record_of(one, len(classes)) for one in samples]
    evaluator.evaluate(len(records))
    return evaluated(records, classes, evaluator.metrics)


def _predicted(model: ExportedModel, pixels: Array, sample: Any) -> Any:
    """Return ``sample`` with what ``model`` finds in ``pixels`` (1, 3, H, W), as models of OpenMMLab return it."""
    height, width = sample.get('ori_shape', pixels.shape[2:])[:2]
    found = model.predict_pixels(pixels, (height, width), model.metadata.score_threshold)
    values = {name: torch.from_numpy(value) if name != 'masks' else value for name, value in found.items()}
    if 'boxes' in values:
        sample.pred_instances = InstanceData(bboxes=values.pop('boxes'), **values)
    elif 'classes' in values:
        sample.pred_sem_seg = PixelData(data=values['classes'][None])
    else:
        sample.set_field(values['scores'], 'pred_score')
    return sample


def measure_drops(sides: Sequence[Arrays]) -> dict[str, list[float]]:
    """Return fp32, int8, drop and its interval (low, high), all in fractions of 1, by main metric.

    A RunError says that the fp32 file gets nothing right, so that nothing can be lost.
    """
    boot, drops = Bootstrap([1, 1], len(sides[0]['images']), SAMPLES, 0), {}
    metrics = [measure(one, boot.draws).metrics for one in sides]
    for group, name in dict(reversed(metrics[0])).items():  # the first of each group
        row: Any = boot.row((group, name), [[one[group, name]] for one in metrics])
        fp32, change = row.sides[0].value, row.differences[0]
        if not fp32 or change.value is None:
            raise RunError(f'the fp32 file has {name} {fp32}: there is nothing that could be lost')
        values = (fp32, fp32 + change.value, -change.value, -change.high, -change.low)
        drops[f'{group} {name}'.strip()] = [round(value / 100, 6) + 0.0 for value in values]
    return drops
