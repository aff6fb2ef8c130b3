"""What a config says of its data: heads, top-k, evaluators' files, batch norm. Nothing is built for these checks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.data.formats.base import Finding, Split
from mmres2net.data.formats.read import dataset_class
from mmres2net.data.layout import datasets_of, walk
from mmres2net.text import join_some

# Heads that classify the classes of the data set, by their key in the model. Others have classes of their own: regions
# or none, stuff, boundaries, identities.
CLASS_HEADS = {
    'bbox_head', 'mask_head', 'mask_iou_head', 'glbctx_head', 'point_head', 'query_head', 'segm_head', 'decode_head',
    'auxiliary_head', 'kernel_generate_head', 'kernel_update_head', 'head',
}  # fmt: skip
OTHER_CLASSES = {'STDCHead', 'GroundingDINOHead'}  # boundaries; words of a text
# Data sets whose list of classes is not what the heads count: identities of tracks, things and stuff in one list.
OTHER_LABELS = {'BaseVideoDataset', 'ReIDDataset', 'CocoPanopticDataset'}
# Modules that pool an image to one pixel and normalize it over the batch.
POOLING = {
    'ASPPHead', 'DepthwiseSeparableASPPHead', 'PSPHead', 'UPerHead', 'APCHead', 'BiSeNetV1', 'BiSeNetV2', 'FastSCNN',
    'ICNet',
}  # fmt: skip


def head_faults(model: Any, classes: Sequence[str]) -> list[str]:
    """Return one message for all heads of ``model`` that classify another number of classes; none if they fit."""
    counts = {f'{path}.num_classes': node['num_classes'] for path, node in class_heads(model or {}).items()}
    wrong = {path: count for path, count in counts.items() if count != len(classes)}
    if not wrong or (model or {}).get('language_model'):  # a detector of phrases scores words, not classes
        return []
    listed = ', '.join(f'{path}={number}' for path, number in wrong.items())
    ways = ' '.join(f'{path}={len(classes)}' for path in wrong)
    return [f'{listed}, but the data set has {len(classes)} classes ({join_some(classes)}); add --cfg-options {ways}']


def class_heads(model: Any) -> dict[str, dict[str, Any]]:
    """Return the heads of a model's config that classify the classes of the data set, by path.

    Without such a head these are classifiers of mmpretrain that end in their backbone, as VGG does, or are one module.
    """
    heads: dict[str, dict[str, Any]] = {}
    others: dict[str, dict[str, Any]] = {}
    for path, node in walk(model, 'model'):
        key = next((step for step in reversed(path.split('.')) if not step.isdigit()), '')
        count = node.get('num_classes')
        if isinstance(count, int) and count > 0 and _kind(node) not in OTHER_CLASSES:
            heads |= {path: node} if key in CLASS_HEADS else {}
            others |= {path: node} if key in ('model', 'backbone') else {}
    return heads or others


def _kind(node: dict[str, Any]) -> str:
    return str(getattr(node.get('type'), '__name__', node.get('type'))).rpartition('.')[2]


def config_findings(cfg: Config, split: Split) -> Iterator[Finding]:
    """Yield what in ``cfg`` does not fit a data set.

    Heads, losses and top-k are compared with its classes, evaluators' files with its files.
    """
    parts = [name.partition('[')[0] for name in split.part.split(', ')]
    messages = []
    bases = {base.__name__ for base in dataset_class(cfg, split.node).__mro__}
    if split.classes and not bases & OTHER_LABELS:
        messages += head_faults(cfg.get('model'), split.classes)
        messages += [fault for part in parts for fault in _topk_faults(cfg, part, split.classes)]
    if split.unit == 'pixels' and len(split.classes) == 1:
        messages += _softmax_faults(cfg.get('model'))
    if 'CocoPanopticDataset' not in bases:  # its instances have a file of their own
        messages += [fault for part in parts for fault in evaluator_faults(cfg, part)]
    yield from (Finding('config does not fit', split.source, message) for message in dict.fromkeys(messages))


def _topk_faults(cfg: Config, part: str, classes: Sequence[str]) -> Iterator[str]:
    # mmpretrain's Accuracy says so only when the first epoch has been trained.
    for path, node in walk(cfg.get(f'{part}_evaluator') or {}, f'{part}_evaluator'):
        topk = node.get('topk')
        most = max(topk) if isinstance(topk, list | tuple) else topk
        if isinstance(most, int) and most > len(classes):
            yield (
                f'{path}.topk={topk}, but the data set has {len(classes)} classes ({join_some(classes)}); '
                f'add --cfg-options {path}.topk=1'
            )


def _softmax_faults(model: Any) -> Iterator[str]:
    """Yield a message for each decode head with one class and a softmax, whose loss and gradient are always zero."""
    for path, node in class_heads(model or {}).items():
        losses = node.get('loss_decode') or {}
        losses = losses if isinstance(losses, list | tuple) else [losses]
        types = [str(loss.get('type', 'CrossEntropyLoss')) for loss in losses if not loss.get('use_sigmoid')]
        if node['num_classes'] == 1 and sum(kind.endswith('CrossEntropyLoss') for kind in types) == len(losses):
            yield (
                f'{path} has one class and a softmax, whose loss is zero whatever it predicts; use two classes, '
                "such as ('background', NAME), with masks of 0 and 1"
            )


def evaluator_faults(cfg: Config, part: str) -> Iterator[str]:
    """Yield a message for each evaluator of a part that reads another annotation file than the part's data sets."""
    nodes = [node for node in datasets_of(cfg, part) if isinstance(node.get('ann_file'), str) and node['ann_file']]
    files = [Path(node.get('data_root') or '') / node['ann_file'] for node in nodes]
    read = {path.resolve() for path in files}
    for path, node in walk(cfg.get(f'{part}_evaluator') or {}, f'{part}_evaluator'):
        own = node.get('ann_file')
        if isinstance(own, str) and own and files and Path(own).resolve() not in read:
            yield (
                f'{path}.ann_file={own}, but the data set of {part}_dataloader reads {files[0]}: the metric would '
                f'compare predictions with other annotations; add --cfg-options {path}.ann_file={files[0]}'
            )


def batch_fault(cfg: Config, images: int, processes: int = 1) -> str:
    """Return why a training step has one image, where a head normalizes one pixel per image over it; empty if not so.

    Args:
        cfg: The config of the run.
        images: Images of the training set that ``filter_cfg`` keeps.
        processes: Processes of the run; synchronized batch norm counts the images of all of them.
    """
    loader = cfg.get('train_dataloader') or {}
    batch = loader.get('batch_size') or 1
    heads = [(path, node) for path, node in walk(cfg.get('model') or {}, 'model') if _pools(node, processes)]
    if not heads:
        return ''
    path, node = heads[0]
    reason = f'{path} ({node["type"]}) normalizes one pixel per image over the batch, which needs two images'
    if batch == 1:
        return f'train_dataloader.batch_size=1, but {reason}; set it to 2 or more'
    # Where a wrapper or a sampler changes the number of images, it shows when the data set is built.
    dataset, sampler = loader.get('dataset') or {}, (loader.get('sampler') or {}).get('type')
    counted = datasets_of(cfg, 'train') == [dataset] and 'Infinite' not in str(sampler) and not dataset.get('indices')
    if not counted or loader.get('drop_last') or -(-images // processes) % batch != 1:
        return ''
    return (
        f'{images} images leave one image for the last step of an epoch with batch_size={batch}, but {reason}; add '
        '--cfg-options train_dataloader.drop_last=True'
    )


def _pools(node: dict[str, Any], processes: int) -> bool:
    norm = str((node.get('norm_cfg') or {}).get('type'))
    return _kind(node) in POOLING and (norm.startswith('BN') or (norm == 'SyncBN' and processes == 1))
