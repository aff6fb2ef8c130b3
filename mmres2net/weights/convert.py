"""``mmres2net convert-weights``: a checkpoint of one library converted for another; nothing is dropped silently."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.files import atomic_path, writable_file
from mmres2net.flags import parse
from mmres2net.models.dla import LEVEL_CHANNELS
from mmres2net.weights.loading import Report, to_ours
from mmres2net.weights.naming import SHARED_HEAD, Family, Recognised, recognise, rename, stem_names
from mmres2net.weights.reading import class_names, read_checkpoint, unwrap, weights_key

TARGETS: tuple[Family, ...] = get_args(Family)
# OpenMMLab's libraries with Res2Nets, and their depths
MMLABS = ('mmdet', 'mmpretrain')
SUFFIXES = ('.pth', '.pt', '.safetensors')
OTHER_FUNCTION = (
    'note: mmdet computes another function from the same weights: it pools the last split of a block only where the '
    "block is strided (our stage_pool='mmdet'), so features differ unless the weights were trained with it"
)


@dataclass(frozen=True)
class Converted:
    """A converted checkpoint."""

    state: dict[str, Tensor]  # by the names of the target
    recognised: Recognised  # what the source was recognised as
    report: Report  # what happened to the source's tensors
    is_model: bool  # it is a whole model, of which the backbone is a part


def convert(
    state: Mapping[str, Tensor], target: Family, *, prefix: str | None = None, backbone_only: bool = False
) -> Converted:
    """Return ``state`` under the names of ``target``; values and types are unchanged.

    A whole model stays one if ``target`` has whole models, its other parts unchanged; for the official release and timm
    its backbone is taken, with the classifier if it has one. ``prefix`` begins the network's parameter names; None: it
    is found. With ``backbone_only`` there are no classifier, neck and heads. A UserError says that there is no Res2Net,
    or one that ``target`` does not have.
    """
    recognised = recognise(state, prefix=prefix)
    check_target(recognised, target)
    ours, report = to_ours(state, recognised)
    network, added = network_for(target, ours, deep_stem=recognised.deep_stem)
    is_model = bool(recognised.prefix) and target in (*MMLABS, 'mmres2net') and not backbone_only
    start, in_head, head = '', '-', 'head.fc' if recognised.prefix else 'fc'
    others: dict[str, str] = {}  # other parts, by their names in `state`
    if is_model:
        if recognised.shared_head and target in MMLABS:
            what = f'{target} has no Res2Net stage as a shared head, which this detector has'
            raise UserError(f'{what}; add --backbone-only')
        start, in_head = recognised.prefix, 'layer4.' if recognised.shared_head else '-'
        others = {name: name for name in report.left if not name.startswith(start)}
    elif target != 'mmdet' and f'{head}.weight' in state and not backbone_only:
        start, fc = ('backbone.', 'head.fc') if target == 'mmpretrain' else ('', 'fc')
        others = {name: name.replace(head, fc, 1) for name in (f'{head}.weight', f'{head}.bias') if name in state}
    written = {(SHARED_HEAD if name.startswith(in_head) else start) + name: tensor for name, tensor in network.items()}
    written |= {new: state[old] for old, new in others.items()}
    left = [name for name in report.left if name not in others]
    report = replace(report, adapted=[*report.adapted, *added], left=left)
    return Converted(written, recognised, report, is_model)


def check_target(recognised: Recognised, target: Family) -> None:
    """Raise a UserError if ``target`` has no network of this kind."""
    lacks = {
        'squeeze and excitation': recognised.se and target not in ('timm', 'mmres2net'),
        'deep layer aggregation': recognised.dla and target in MMLABS,
        'plain stem (it has v1b alone)': not recognised.deep_stem and target == 'mmdet',
    }
    for what, lacking in lacks.items():
        if lacking:
            raise UserError(f'this is {recognised}; {target} has no Res2Net with {what}: choose another --to')


def network_for(target: Family, ours: Mapping[str, Tensor], *, deep_stem: bool) -> tuple[dict[str, Tensor], list[str]]:
    """Return ``ours``, a network under our names, under those of ``target``, and sentences about what was added.

    The official DLA holds projections in every tree of several levels, which it never uses; they are set to zero.
    """
    layers = stem_names(target, deep_stem)
    state = {rename(name, layers): tensor for name, tensor in ours.items()}
    ends = '.tree1.tree1.conv1.weight'  # of the first block in a tree of several levels
    deepest = (
        [name.removesuffix(ends) for name in ours if name.endswith(ends) and '.tree2' not in name]
        if target == 'official'
        else []
    )
    trees = sorted({tree[:end] for tree in deepest for end in range(len('level2'), len(tree) + 1, len('.tree1'))})
    for tree in trees:
        inputs, outputs = LEVEL_CHANNELS[int(tree[5]) - 1 :][:2]
        project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        state |= {f'{tree}.project.{name}': tensor.zero_() for name, tensor in project.state_dict().items()}
    return state, ['projections that the official code never uses are set to zero'] if trees else []


def main(argv: Sequence[str] | None = None) -> int:
    """Convert by the flags in ``argv``, and print what happened; after a UserError nothing has been written."""
    args = parse('convert-weights', argv)
    source, target = Path(os.path.expanduser(args.source)), Path(os.path.expanduser(args.target))
    if target.suffix not in SUFFIXES:
        raise UserError(f'{target}: the suffix selects the format, one of {", ".join(SUFFIXES)}')
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f'{target} is the source itself; name another file')
    if target.is_file() and not args.force:
        raise UserError(f'{target} exists; name another file, or overwrite it with --force')
    writable_file(target, 'DST')
    content = read_checkpoint(source, allow_pickle=args.allow_unsafe_checkpoint)
    entry = weights_key(content, args.key)
    converted = convert(unwrap(content, key=args.key), args.to, prefix=args.prefix, backbone_only=args.backbone_only)
    print(f'{source}{f", weights under {entry} (--key chooses others)" if entry else ""}\n{converted.report}')
    beside = [str(name) for name in content if entry and name != entry]
    if beside:
        print(f'  entries not written: {", ".join(beside)}')
    if len({converted.recognised.family, args.to, 'mmdet'}) == 2 and converted.recognised.family != args.to:
        print(OTHER_FUNCTION)
    # The classes of a detector, without which it cannot be used for inference in OpenMMLab's libraries
    meta = content.get('meta')
    classes = class_names((meta.get('dataset_meta') if isinstance(meta, dict) else None) or {})
    extra = {'meta': {'dataset_meta': {'classes': classes}}} if classes and converted.is_model else {}
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in converted.state.items()}
    try:
        with atomic_path(target) as path:
            if target.suffix == '.safetensors':
                # Not save_file, whose files only their owner can read.
                path.write_bytes(save(plain, metadata={'format': 'pt'}))
            else:
                torch.save({**extra, 'state_dict': plain} if extra else plain, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise UserError(f'{target} cannot be written: {getattr(error, "strerror", None) or error}') from error
    print(f'written: {target} ({args.to}, {len(converted.state)} tensors)')
    return 0
