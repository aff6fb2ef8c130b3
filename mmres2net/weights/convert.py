"""``mmres2net convert-weights``: a checkpoint of one library converted for another; nothing is dropped silently.

With ``--verify`` the features of the network in the other library's own code are compared with ours, in float64.
"""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.files import atomic_path, writable_file
from mmres2net.flags import parse
from mmres2net.models.arch import Arch
from mmres2net.models.dla import LEVEL_CHANNELS, Res2NetDLA
from mmres2net.models.res2net import Res2Net
from mmres2net.weights.fetching import PUBLISHED
from mmres2net.weights.loading import Report, differences, to_ours
from mmres2net.weights.naming import SHARED_HEAD, Family, Recognised, recognise, rename, stem_names
from mmres2net.weights.reading import read_checkpoint, unwrap, weights_key

TARGETS: tuple[Family, ...] = get_args(Family)
# OpenMMLab's libraries with Res2Nets, and their depths
MMLABS = ('mmdet', 'mmpretrain')
IN_HEAD = f'{SHARED_HEAD}layer4.'
DEPTHS: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
SUFFIXES = ('.pth', '.pt', '.safetensors')
TRAINING = ('optimizer', 'optim', 'param_schedulers', 'lr_scheduler', 'scheduler', 'scaler', 'amp_scaler')
OTHER_FUNCTION = (
    'note: mmdet computes another function from the same weights: it pools the last split of a block only where the '
    'block is strided, so the first stage differs. Weights of one load into the other, and give wrong features'
)
# Of a verification
TOLERANCE = 1e-10  # of the largest feature
SIZE = (64, 96)  # multiples of 32, as the DLA needs
TIMM_DLA = {'dla60': 'dla60', 'dla60x': 'dla60x'} | {
    arch: str(entry.timm) for arch, entry in PUBLISHED.items() if '_dla60' in arch
}


@dataclass(frozen=True)
class Converted:
    """A converted checkpoint: the weights under the names of the target, and the network in it under our names."""

    state: dict[str, Tensor]
    ours: dict[str, Tensor]
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
    a part of one, or one that ``target`` does not have.
    """
    recognised = recognise(state, prefix=prefix)
    check_target(recognised, target)
    ours, report = to_ours(state, recognised)
    check_complete(ours, recognised)
    network, added = network_for(target, ours, recognised.row)
    start, is_model = '', bool(recognised.prefix) and target in (*MMLABS, 'mmres2net') and not backbone_only
    head = 'head.fc' if recognised.prefix else 'fc'
    others: dict[str, str] = {}  # other parts, by their names in `state`
    if is_model:
        if recognised.shared_head and target in MMLABS:
            what = f'{target} has no Res2Net stage as a shared head, which this detector has'
            raise UserError(f'{what}; add --backbone-only')
        start = recognised.prefix
        others = {name: name for name in report.left if not name.startswith((start, IN_HEAD))}
    elif target != 'mmdet' and f'{head}.weight' in state and not backbone_only:
        start, fc = ('backbone.', 'head.fc') if target == 'mmpretrain' else ('', 'fc')
        others = {name: name.replace(head, fc, 1) for name in (f'{head}.weight', f'{head}.bias') if name in state}
    in_head = 'layer4.' if is_model and recognised.shared_head else '-'
    written = {(SHARED_HEAD if name.startswith(in_head) else start) + name: tensor for name, tensor in network.items()}
    written |= {new: state[old] for old, new in others.items()}
    sources = {our: source for source, our in report.renamed.items()}
    pairs = ((sources.get(our, our), new) for our, new in zip(ours, network, strict=False))  # added ones come last
    renamed = {old: new for old, new in pairs if old.removeprefix(recognised.prefix).removeprefix(SHARED_HEAD) != new}
    left = [name for name in report.left if name not in others]
    report = replace(report, adapted=[*report.adapted, *added], left=left, renamed=renamed)
    return Converted(written, ours, recognised, report, is_model)


def check_target(recognised: Recognised, target: Family) -> None:
    """Raise a UserError if ``target`` does not have the network; it says why, and which targets have it."""
    obstacle = _obstacle(recognised.row, target)
    if obstacle:
        others = '|'.join(other for other in TARGETS if not _obstacle(recognised.row, other))
        raise UserError(f'{recognised.network} cannot be written for {target}: {obstacle}. Possible: --to {others}')


def _obstacle(row: Arch, target: Family) -> str:
    """Return why ``target`` cannot hold the network; empty if it can."""
    se, mmlab = row.se_reduction, target in MMLABS
    obstacles = {
        'no other library has the 32-pixel networks': row.family == 'cifar' and target != 'mmres2net',
        'the official release has no squeeze-and-excitation': target == 'official' and se is not None,
        "timm's squeeze-and-excitation reduces by 16": target == 'timm' and se not in (None, 16),
        f'{target} has no deep layer aggregation': mmlab and row.family == 'dla',
        f'{target} has no squeeze-and-excitation': mmlab and se is not None,
        f'{target} has no Res2NeXt (cardinality {row.cardinality})': mmlab and row.cardinality > 1,
        f'{target} has no Res2Net of one scale': mmlab and row.scales == 1,
        f'{target} has depths 50, 101 and 152, not {row.depths}': mmlab and row.depths not in DEPTHS,
        "mmdet's Res2Nets have a deep stem and average pooling in the shortcuts (v1b), this one has not": (
            target == 'mmdet' and not (row.deep_stem and row.avg_down)
        ),
    }
    return next((text for text, holds in obstacles.items() if holds), '')


def check_complete(ours: Mapping[str, Tensor], recognised: Recognised) -> None:
    """Raise a UserError if a network under our names lacks a tensor, or one has another shape."""
    build = Res2NetDLA if recognised.row.family == 'dla' else Res2Net
    with torch.device('meta'):
        expected = build(**recognised.options).state_dict()
    faults = differences({name: tensor for name, tensor in ours.items() if name in expected}, expected)
    if faults:
        raise UserError('\n'.join([f'this is {recognised}, but the file is damaged or changed:', *faults]))


def network_for(target: Family, ours: Mapping[str, Tensor], row: Arch) -> tuple[dict[str, Tensor], list[str]]:
    """Return ``ours``, a network under our names, under those of ``target``, and sentences about what was added.

    The official DLA holds projections in every tree of several levels, which it never uses; they are set to zero.
    """
    layers = stem_names(target, row.deep_stem)
    state = {rename(name, layers): tensor for name, tensor in ours.items()}
    count = 0
    for i, levels in enumerate(row.depths if target == 'official' and row.family == 'dla' else ()):
        for depth in range(levels - 1):
            inputs, outputs = LEVEL_CHANNELS[i + 1 : i + 3]
            project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
            for parameter in project.parameters():
                count += nn.init.zeros_(parameter).numel()
            tree = f'level{i + 2}{".tree1" * depth}.project'
            state |= {f'{tree}.{name}': tensor for name, tensor in project.state_dict().items()}
    return state, [f'{count:,} values of projections that the official code never uses, set to zero'] if count else []


def main(argv: Sequence[str] | None = None) -> int:
    """Convert by the flags in ``argv``, and print what happened; after a UserError nothing has been written."""
    args = parse('convert-weights', argv)
    source, target = Path(os.path.expanduser(args.source)), Path(os.path.expanduser(args.target))
    check_paths(source, target, force=args.force)
    content = read_checkpoint(source, allow_pickle=args.allow_unsafe_checkpoint)
    entry = weights_key(content, args.key)
    beside = [name for name in content if name != entry] if entry else []
    training = [name for name in beside if name in TRAINING]
    if training and not args.strip_optimizer:
        what = f'{source} also holds {", ".join(training)}, without which the new file cannot be resumed from'
        raise UserError(f'{what}; give --strip-optimizer to leave them out')
    converted = convert(unwrap(content, key=args.key), args.to, prefix=args.prefix, backbone_only=args.backbone_only)
    print(f'{source}{f", weights under {entry} (--key chooses others)" if entry else ""}\n{converted.report}')
    extra = _dataset_meta(content) if converted.is_model and target.suffix != '.safetensors' else {}
    if beside:
        partly = {'meta': 'meta (except dataset_meta, the classes)'} if extra else {}
        print(f'  entries not written: {", ".join(partly.get(name, str(name)) for name in beside)}')
    for line in hints(converted.recognised, args.to):
        print(line)
    if args.verify:
        for comparison in verify(converted.ours, converted.recognised, args.to):
            print(f'verified: {comparison}')
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


def check_paths(source: Path, target: Path, *, force: bool) -> None:
    """Raise a UserError if ``target`` cannot be written; it comes before anything is read."""
    if target.suffix not in SUFFIXES:
        raise UserError(f'{target}: the suffix selects the format, one of {", ".join(SUFFIXES)}')
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f'{target} is the source itself; name another file')
    if target.is_file() and not force:
        raise UserError(f'{target} exists; name another file, or overwrite it with --force')
    writable_file(target, 'DST')


def hints(recognised: Recognised, target: Family) -> list[str]:
    """Return how to build the network of the new file here, or a note if ``target`` computes another function."""
    families = {recognised.family, target}
    if target != 'mmres2net':
        return [OTHER_FUNCTION] if 'mmdet' in families and len(families) == 2 else []
    kind = 'Res2NetDLA' if recognised.row.family == 'dla' else 'Res2Net'
    lines = [f'it fits mmres2net.{kind}({", ".join(f"{k}={v!r}" for k, v in recognised.options.items())})']
    if not recognised.stage_pool_sure and recognised.family == 'mmdet':
        lines.append("in mmdet these run with stage_pool='mmdet'; its ImageNet weights were trained with 'official'")
    elif not recognised.stage_pool_sure:
        lines.append("stage_pool: as in the trained model; the names do not tell, 'official' is the likeliest")
    return lines


def _dataset_meta(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry from which inference in OpenMMLab's libraries knows the classes, if it is there."""
    meta = content.get('meta')
    classes = meta.get('dataset_meta') if isinstance(meta, dict) else None
    return {'meta': {'dataset_meta': classes}} if classes and _is_plain(classes) else {}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and _is_plain([*value.values()])
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


class Comparison(NamedTuple):
    """The network of a library and ours, with the same weights."""

    equal: bool  # both compute the same function, up to rounding
    text: str  # which were compared, and by how much they differ


def verify(ours: Mapping[str, Tensor], recognised: Recognised, target: Family) -> Iterator[str]:
    """Compare the code of the source's and the target's library with ours; a UserError if features differ."""
    families: list[Family] = [family for family in dict.fromkeys((recognised.family, target)) if family != 'mmres2net']
    if not families:
        what = "--verify compares with another library's code"
        raise UserError(f'{what}: leave it out, or convert --to another library that has the network')
    for family in families:
        check_comparable(recognised, family)
    for family in families:
        found = compare(ours, recognised, family)
        if not found.equal:
            raise UserError(f'the features differ: {found.text}; nothing was written')
        yield found.text


def check_comparable(recognised: Recognised, family: Family) -> None:
    """Raise a UserError if no comparison with ``family`` is possible, before any work."""
    check_target(recognised, family)
    if len(recognised.row.depths) < 4:
        raise UserError(f'--verify needs a complete network; the file has {len(recognised.row.depths)} of 4 stages')
    if recognised.row.family == 'dla' and recognised.arch not in TIMM_DLA:
        raise UserError('--verify needs a network that timm knows by name; leave --verify out')
    module = 'timm' if family in ('official', 'timm') else f'{family}.models.backbones'
    try:
        importlib.import_module(module)
    except ImportError as error:
        what = f'--verify needs {module.split(".")[0]}, which cannot be imported here ({error})'
        raise UserError(f'{what}: install it, or leave --verify out') from error


def compare(ours: Mapping[str, Tensor], recognised: Recognised, family: Family) -> Comparison:
    """Compare the network of ``family`` with ours on a random image of 64 by 96.

    The official code cannot be installed as a library; timm, which has its names and function, takes its place. The
    ``stage_pool`` is that of ``family``. A UserError says that the weights do not fit the library's network.
    """
    stage_pool = 'mmdet' if family == 'mmdet' else 'official'
    library: Family = 'timm' if family == 'official' else family
    theirs, _ = network_for(library, ours, recognised.row)
    is_dla, options = recognised.row.family == 'dla', recognised.options
    network = Res2NetDLA(**options) if is_dla else Res2Net(**{**options, 'stage_pool': stage_pool})
    model = _timm_model(recognised) if library == 'timm' else _mmlab_model(recognised, library)
    image = torch.randn(1, recognised.in_channels, *SIZE, generator=torch.Generator().manual_seed(0)).double()
    outs, expected = _features(network, ours, image), _features(model, theirs, image)
    difference = max((a - b).abs().max().item() for a, b in zip(outs, expected, strict=True))
    scale = max(b.abs().max().item() for b in expected)
    who = 'timm (for the official code)' if family == 'official' else library
    option = " with stage_pool='mmdet'" if family == 'mmdet' else ''
    text = f'{who} and mmres2net{option}, float64, 4 stages: largest difference {difference:.3g}, '
    return Comparison(difference <= TOLERANCE * max(scale, 1.0), f'{text}largest feature {scale:.3g}')


def _mmlab_model(recognised: Recognised, library: str) -> nn.Module:
    row, depth = recognised.row, DEPTHS[recognised.row.depths]
    options: dict[str, Any] = {'base_width': row.base_width, 'scales': row.scales, 'out_indices': (0, 1, 2, 3)}
    options |= {} if library == 'mmdet' else {'deep_stem': row.deep_stem, 'avg_down': row.avg_down}
    backbones = importlib.import_module(f'{library}.models.backbones')
    return backbones.Res2Net(depth=depth, in_channels=recognised.in_channels, **options)


def _timm_model(recognised: Recognised) -> nn.Module:
    import timm
    from timm.layers import SEModule

    row = recognised.row
    options: dict[str, Any] = {'pretrained': False, 'num_classes': 0, 'in_chans': recognised.in_channels}
    if row.family == 'dla':
        return timm.create_model(TIMM_DLA[str(recognised.arch)], **options)
    options |= {'block_args': {'scale': row.scales, **({'attn_layer': SEModule} if row.se_reduction else {})}}
    options |= {'layers': row.depths, 'base_width': row.base_width, 'cardinality': row.cardinality}
    options |= {'stem_width': 32, 'stem_type': 'deep'} if row.deep_stem else {}
    return timm.create_model('res2net50_26w_4s', avg_down=row.avg_down, **options)


def _features(model: nn.Module, weights: Mapping[str, Tensor], image: Tensor) -> list[Tensor]:
    """Return the output of each of the four stages with these weights, whatever the model itself returns."""
    fault = model.load_state_dict(dict(weights), strict=False)
    if fault.missing_keys or fault.unexpected_keys:
        what = f'missing {fault.missing_keys[:4]}, unexpected {fault.unexpected_keys[:4]}'
        raise UserError(f'--verify cannot load the weights into {type(model).__module__}: {what}; leave --verify out')
    found: list[Tensor] = []
    for i in range(4):
        stage = model.get_submodule(f'level{i + 2}' if hasattr(model, 'level2') else f'layer{i + 1}')
        stage.register_forward_hook(lambda _, __, output: found.append(output))
    model.double().eval()  # not chained: eval() of OpenMMLab's models returns nothing
    with torch.inference_mode():
        model(image)
    return found
