"""``--data PATH``: the config's own data set in its standard layout, or data of the user, whatever their layout."""

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmres2net.data.formats.base import Split
from mmres2net.data.formats.read import image_folder, read_splits
from mmres2net.data.layout import PARTS, datasets_of, point_at
from mmres2net.data.own.dataset import OwnData, recognize
from mmres2net.data.own.standard import write_standard
from mmres2net.drawing import class_color
from mmres2net.engine.config import RUN, Change, load_config, merge
from mmres2net.engine.launcher import from_first_process, world_size
from mmres2net.engine.own_data.fit import check_task, task_of, use_own_data
from mmres2net.engine.resume import check_unused, held
from mmres2net.engine.weights import check_checkpoint
from mmres2net.errors import UserError
from mmres2net.files import writable_dir
from mmres2net.text import join_some
from mmres2net.weights.reading import class_names, read_checkpoint

SAMPLED = 200  # annotation files from which class names are read


def read_data(cfg: Config, args: argparse.Namespace, parts: Sequence[str]) -> Change:
    """Return the config of a run with its data read from ``args.data``, and a line for each change.

    The first process writes own data in standard form below the work dir. Unless ``--work-dir`` names it, the work dir
    gets the name of the data, so that no run on other data is overwritten. A UserError says that nothing is recognized,
    or that it does not fit the config, the checkpoint or the work dir.
    """
    place, options = Path(args.data).expanduser().resolve(), args.cfg_options or {}
    name = re.sub(r'[^\w.-]+', '_', data_name(place))
    folder = Path(args.work_dir or f'{cfg.work_dir}-{name}')
    data = from_first_process(lambda: _write(cfg, args, parts, folder))
    if data is None:
        return point_at(cfg, args.data, parts), []
    keep = 'train' not in parts or args.keep_schedule
    recipe = load_config(args.config) if options else None
    given = {*options, *(['train_dataloader.batch_size'] if getattr(args, 'batch', None) else [])}
    size = world_size(args.launcher)
    cfg, lines = use_own_data(cfg, data, recipe=recipe, processes=size, given=given, keep_schedule=keep)
    # The settings of the user win over what was fitted to the data.
    merge(cfg, {key: value for key, value in options.items() if '.backbone.' not in key})
    cfg.work_dir = str(folder)
    stem = Path(cfg.filename).name.removesuffix(RUN).removesuffix('.py')
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename=f'{stem}-{name}{RUN}'), lines


def data_name(place: Path) -> str:
    """Return what tells data from others: the name of a folder, or of a file unless that is ``data.yaml``."""
    if place.is_dir():
        return place.name
    return place.parent.name if place.stem == 'data' else place.stem


def _write(cfg: Config, args: argparse.Namespace, parts: Sequence[str], folder: Path) -> OwnData | None:
    """Return own data in standard form, after a summary on stderr; None for the config's own data set."""
    data, name = find_own(cfg, args.data, args.config, parts), 'data'
    if data is None:
        return None
    if 'train' not in parts:
        unsafe: bool = args.allow_unsafe_checkpoint
        file = check_checkpoint(args.checkpoint, 'the checkpoint to test', allow_pickle=unsafe)
        content = read_checkpoint(file, allow_pickle=unsafe) if Path(file).is_file() else {}
        # Beside the files of a training run, whose data may be others.
        data, name = with_classes_of(content, file, data), 'test_data'
    elif not (args.resume or args.overwrite or args.profile or cfg.get('resume')):
        check_unused(folder)
    folder = writable_dir(folder, '--work-dir')
    with held(folder) if name == 'data' else nullcontext():  # another run may read them
        data = write_standard(data, folder / name)
    print(data.as_text(), file=sys.stderr)
    # The readers of the source cannot be sent to other processes.
    plain = Split('', '', '')
    return replace(data, splits={part: replace(one, source=plain) for part, one in data.splits.items()})


def classes_and_images(cfg: Config, path: str, title: str, checkpoint: Any, name: str) -> tuple[Config, list[Path]]:
    """Return the config of a trained model with the classes of the data at ``path``, and test images; writes nothing.

    The content of the checkpoint and its ``name`` are as in :func:`with_classes_of`, ``title`` is that of the config.
    """
    parts = ['test'] if cfg.get('test_dataloader') else list(PARTS)
    data = find_own(cfg, path, title, parts)
    if data is None:
        return point_at(cfg, path, parts), []  # whose data sets name the images
    data = with_classes_of(checkpoint, name, data)
    split = data.splits.get('test', data.splits['val'])
    return use_own_data(cfg, data, keep_schedule=True)[0], [Path(sample.image) for sample in split.source.samples]


def find_own(cfg: Config, path: str, title: str, parts: Sequence[str]) -> OwnData | None:
    """Return what is recognized at ``path``; None: the config's own data set. A UserError says that it is neither."""
    if not Path(path).expanduser().exists():
        raise UserError(f'--data {path}: no such file or folder')
    misfit = _layout_fault(cfg, path, parts)
    if not misfit:
        return None
    try:
        data = recognize(path, task=task_of(cfg, title))
    except UserError as error:
        try:  # it may be made for another task
            other = recognize(path)
        except UserError:
            other = None
        if other is not None:
            check_task(cfg, other, title)
        raise UserError(f'{path} is not the data set that {title} names: {misfit}\nas own data, {error}') from error
    check_task(cfg, data, title)
    return data


def _layout_fault(cfg: Config, path: str, parts: Sequence[str]) -> str:
    """Return why a folder is not the data set of a config in its standard layout; empty if it is.

    Of the last of ``parts``, the smallest one, class names are read: data of others may have the same layout.
    """
    top = Path(path).expanduser().absolute()
    try:
        pointed = point_at(cfg, path, parts)
        for node in datasets_of(pointed, parts[-1]):
            file = Path(node.get('data_root') or '', node.get('ann_file') or '-')
            if file.is_dir():
                return f'{file} is a folder'
            if file.is_file() and top not in file.absolute().parents:
                return f'{file} lists other data'
        splits = read_splits(pointed, parts[-1:])
    except UserError as error:
        return str(error)
    faults = [finding.what for split in splits for finding in split.findings if finding.kind == 'classes do not fit']
    for split in splits:
        if place := image_folder(pointed, split.node):
            names = sorted(entry.name for entry in place.glob('*') if entry.is_dir())
            coded = all(re.fullmatch(r'n\d{8}', name) for name in names)  # ImageNet's, whose classes have other names
            fits = coded or set(split.classes) in (set(), set(names))
            faults.append('' if fits else f'its classes are {join_some(names)}')
        if split.check_names:
            parsed = [split.parse(sample)[1] for sample in split.samples[:SAMPLED]]
            faults.append(split.check_names({one.label for objects in parsed for one in objects if one.label}))
    return next(filter(None, faults), '')


def with_classes_of(checkpoint: Any, name: str, data: OwnData) -> OwnData:
    """Return ``data`` with the classes that a checkpoint names, in its order; a UserError if they do not fit."""
    meta = checkpoint.get('meta') or {}
    classes = class_names(meta.get('dataset_meta') or meta) or data.classes
    unknown = [one for one in data.classes if one not in classes]
    # The values in masks are the places in the list of classes.
    moved = data.task == 'segmentation' and classes[: len(data.classes)] != data.classes
    if unknown or moved:
        raise UserError(
            f'{data.path} has the classes {join_some(unknown or data.classes)}, and {name} was trained on '
            f'{join_some(classes)}: {"name" if unknown else "number"} them alike, e.g. by `classes` in a data file'
        )
    colors = dict(zip(data.classes, data.palette, strict=True))
    palette = tuple(colors.get(one, class_color(index)) for index, one in enumerate(classes))
    return replace(data, classes=classes, palette=palette)
