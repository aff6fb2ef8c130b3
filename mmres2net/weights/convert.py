"""``mmres2net convert-weights``: a checkpoint of one library made into that of another, nothing lost unsaid."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmres2net.errors import UserError
from mmres2net.files import atomic_path
from mmres2net.models.dla import Res2NetDLA
from mmres2net.models.res2net import Res2Net
from mmres2net.weights.content import entry_of, other_entries, unwrap
from mmres2net.weights.families import SHARED_HEAD, Recognised, recognise
from mmres2net.weights.mapping import Report, some, to_ours
from mmres2net.weights.reading import FLAG, read_checkpoint
from mmres2net.weights.targets import TARGETS, Target, assemble, check_target, network_for
from mmres2net.weights.verify import check_comparable, compare

SUFFIXES = ('.pth', '.pt', '.safetensors')
TRAINING = ('optimizer', 'optim', 'param_schedulers', 'lr_scheduler', 'scheduler', 'scaler', 'amp_scaler')
OTHER_FUNCTION = (
    'note: mmdet makes another function of the same weights than all others do: it pools the last split of a block '
    'only where that block is strided, so the first stage differs. Weights of the one fit the other, and mislead it'
)


@dataclass(frozen=True)
class Converted:
    """A converted file.

    Args:
        state: Weights by the names of the target.
        ours: The network in it by our names.
        recognised: What the source was recognised as.
        report: What became of the source's tensors.
    """

    state: dict[str, Tensor]
    ours: dict[str, Tensor]
    recognised: Recognised
    report: Report

    @property
    def whole(self) -> bool:
        """Whether it is a whole model, with a backbone among its parts."""
        prefix = self.recognised.prefix
        return bool(prefix) and any(name.startswith(prefix) for name in self.state)


def convert(
    state: Mapping[str, Tensor], target: Target, *, prefix: str | None = None, backbone_only: bool = False
) -> Converted:
    """Return ``state`` by the names of ``target``; values and types stay to the bit.

    A whole model stays one where ``target`` has whole models, its other parts untouched; for the official release and
    timm its backbone is taken out, with a classifier if it has one.

    Args:
        state: Weights by name, as :func:`mmres2net.weights.unwrap` returns them.
        target: Whose names to write.
        prefix: What stands before the network's names; None: found.
        backbone_only: Take the network alone, without classifier, neck and heads.

    Raises:
        UserError: No Res2Net, a part of one, or one that ``target`` does not have.
    """
    recognised = recognise(state, prefix=prefix)
    check_target(recognised, target)
    ours, report = to_ours(state, recognised)
    check_whole(ours, recognised)
    network, added = network_for(target, ours, recognised.row)
    written, used = (network, frozenset[str]()) if backbone_only else assemble(network, state, recognised, target)
    report = replace(
        report,
        adapted=(*report.adapted, *added),
        left=tuple(name for name in report.left if name not in used),
        renamed=_renamed(recognised, report, ours, network),
    )
    return Converted(written, ours, recognised, report)


def _renamed(
    recognised: Recognised, report: Report, ours: Mapping[str, Tensor], names: Iterable[str]
) -> dict[str, str]:
    """Return the target's name of each tensor that the source names otherwise, but for a prefix, by the source's."""
    sources = {our: source for source, our in report.renamed.items()}
    pairs = ((sources.get(our, our), new) for our, new in zip(ours, names, strict=False))  # new ones come last
    return {old: new for old, new in pairs if old.removeprefix(recognised.prefix).removeprefix(SHARED_HEAD) != new}


def check_whole(ours: Mapping[str, Tensor], recognised: Recognised) -> None:
    """Check that a network by our names is all there, stage by stage, with the shapes that it should have.

    Raises:
        UserError: It is not; the message names what is missing or misshapen.
    """
    build = Res2NetDLA if recognised.row.family == 'dla' else Res2Net
    with torch.device('meta'):
        expected = build(**recognised.options).state_dict()
    missing = [name for name in expected if name not in ours]
    misfits = [
        f'{name} {tuple(ours[name].shape)} instead of {tuple(tensor.shape)}'
        for name, tensor in expected.items()
        if name in ours and ours[name].shape != tensor.shape
    ]
    if missing or misfits:
        faults = [f'lacks {len(missing)} tensors ({some(missing)})'] if missing else []
        faults += [f'has {len(misfits)} of another shape ({some(misfits)})'] if misfits else []
        raise UserError(f'this is {recognised}, but the file {" and ".join(faults)}: it is damaged or changed')


def parser(prog: str = 'mmres2net convert-weights') -> argparse.ArgumentParser:
    """Return the flags of the conversion."""
    flags = argparse.ArgumentParser(
        prog=prog,
        description='Turn the Res2Net in a checkpoint into that of another library. Whose it is, is found out.',
        epilog='Exit status: 0, or 2 where nothing was written.',
    )
    flags.add_argument('source', metavar='SRC', help='a .pth, .pt or .safetensors file')
    flags.add_argument('target', metavar='DST', help='the file to write, of one of these suffixes')
    flags.add_argument('--to', choices=TARGETS, default='mmres2net', help='whose names to write; default: mmres2net')
    flags.add_argument('--key', help='entry with the weights; default: an average (state_dict_ema), else state_dict')
    flags.add_argument('--prefix', help="what stands before the network's names, such as teacher.backbone.")
    flags.add_argument('--backbone-only', action='store_true', help='leave out classifier, neck and heads')
    flags.add_argument('--strip-optimizer', action='store_true', help='leave out what a resumed training would need')
    flags.add_argument('--verify', action='store_true', help="compare features with the libraries' own code first")
    flags.add_argument('--force', action='store_true', help='write over DST')
    flags.add_argument(FLAG, action='store_true', help='RUNS CODE from SRC, if it needs any to be read')
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Convert by the flags in ``argv`` and print what became of the weights.

    Raises:
        UserError: The file cannot be read, converted or written; nothing is written then.
    """
    args = parser().parse_args(argv)
    source, target = Path(args.source).expanduser(), Path(args.target).expanduser()
    check_paths(source, target, force=args.force)
    content = read_checkpoint(source, allow_pickle=args.allow_unsafe_checkpoint)
    beside = other_entries(content, args.key)
    training = [name for name in beside if name in TRAINING]
    if training and not args.strip_optimizer:
        raise UserError(
            f'{source} also holds {", ".join(training)}, which would be lost, and with it the way to resume this '
            'training from the new file; say so with --strip-optimizer'
        )
    entry = entry_of(content, args.key)
    converted = convert(unwrap(content, key=args.key), args.to, prefix=args.prefix, backbone_only=args.backbone_only)
    print(f'{source}{f", weights under {entry} (--key takes another)" if entry else ""}\n{converted.report}')
    extra = classes_of(content) if converted.whole and target.suffix != '.safetensors' else {}
    if beside:
        kept = {'meta': 'meta (but for dataset_meta, the classes)'} if extra else {}
        print(f'  entries left out: {", ".join(kept.get(name, name) for name in beside)}')
    for line in hints(converted.recognised, args.to):
        print(line)
    if args.verify:
        verify(converted, args.to)
    write(converted.state, target, extra)
    print(f'written: {target} ({args.to}, {len(converted.state)} tensors)')
    return 0


def check_paths(source: Path, target: Path, *, force: bool) -> None:
    """Check where to write before anything is read.

    Raises:
        UserError: ``target`` is no place to write to.
    """
    if target.suffix not in SUFFIXES:
        raise UserError(f'{target}: the suffix tells the format, one of {", ".join(SUFFIXES)}')
    if not target.parent.is_dir():
        raise UserError(f'{target}: no folder {target.parent}; make it first')
    if target.is_dir():
        raise UserError(f'{target} is a folder; name a file in it')
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f'{target} is the source itself; name another file')
    if target.exists() and not force:
        raise UserError(f'{target} exists; name another file, or write over it with --force')


def hints(recognised: Recognised, target: Target) -> list[str]:
    """Return what to know of the new file: how to build its network here, or that ``target`` computes another one."""
    families = {recognised.family, target}
    if target == 'mmres2net':
        kind = 'Res2NetDLA' if recognised.row.family == 'dla' else 'Res2Net'
        lines = [f'it fits mmres2net.{kind}({", ".join(f"{k}={v!r}" for k, v in recognised.options.items())})']
        if recognised.family == 'mmdet' and not recognised.stage_pool_sure:
            lines.append("as mmdet runs them: stage_pool='mmdet'; its ImageNet weights were trained with 'official'")
        elif not recognised.stage_pool_sure:
            lines.append(
                "stage_pool: as in the model that was trained; the names do not tell, 'official' is the likeliest"
            )
        return lines
    return [OTHER_FUNCTION] if 'mmdet' in families and len(families) == 2 else []


def verify(converted: Converted, target: Target) -> None:
    """Compare the source's and the target's own code with ours, on the converted weights, and print what was seen.

    Raises:
        UserError: A library is missing, or features differ.
    """
    asked: tuple[Target, ...] = (converted.recognised.family, target)
    families: list[Target] = [family for family in dict.fromkeys(asked) if family != 'mmres2net']
    for family in families or [target]:
        check_comparable(converted.recognised, family)
    for family in families:
        found = compare(converted.ours, converted.recognised, family)
        print(f'verified: {found}')
        if not found.equal:
            raise UserError(f'the features differ: {found}; nothing was written')


def classes_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry by which the hosts' inference knows a model's classes, if it is there and is plain data."""
    meta = content.get('meta')
    classes = meta.get('dataset_meta') if isinstance(meta, dict) else None
    return {'meta': {'dataset_meta': classes}} if classes and _is_plain(classes) else {}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(entry) for entry in value)
    return value is None or type(value) in (bool, int, float, str)


def write(state: Mapping[str, Tensor], target: Path, extra: Mapping[str, Any]) -> None:
    """Write weights into ``target``, in the format of its suffix; it is whole or not there.

    Args:
        state: Tensors by name: the file holds them alone where there is no ``extra``, else under ``state_dict``.
        target: The file.
        extra: Entries beside ``state_dict``, of plain data; none where the format is safetensors.

    Raises:
        UserError: It cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    try:
        with atomic_path(target) as path:
            _save(plain, path, target.suffix, extra)
    except OSError as error:
        raise UserError(f'{target} cannot be written: {error.strerror or error}') from error


def _save(plain: dict[str, Tensor], path: Path, suffix: str, extra: Mapping[str, Any]) -> None:
    if suffix != '.safetensors':
        torch.save({**extra, 'state_dict': plain} if extra else plain, path)
        return
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UserError(f"{suffix} needs the package that writes it: pip install 'safetensors>=0.4'") from error
    # Not save_file: its files can be read by their owner alone.
    path.write_bytes(save(plain, metadata={'format': 'pt'}))
