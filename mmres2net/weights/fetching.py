"""Published weights, and from the name of a checkpoint to a file: downloaded once, verified, kept in torch's cache.

URLs and hashes are those of the official code (https://github.com/Res2Net/Res2Net-PretrainedModels and, for
``res2net50_18w_6s``, https://github.com/Res2Net/Res2Net-maskrcnn). A hash is the first 8 digits of a SHA-256: it finds
damage, but does not protect against a forged file.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch

from mmres2net.errors import UserError
from mmres2net.fetch.download import Remote, damage, fetch, log
from mmres2net.files import disk_error, locked
from mmres2net.models.arch import ALIASES, ARCHS, find_arch
from mmres2net.weights.reading import check_file

MIRRORS = 'MMRES2NET_WEIGHTS_MIRRORS'  # URLs of folders with the same files, separated by blanks, tried first
HOST = 'https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net'
LICENCE = 'CC BY-NC-SA 4.0: not for commercial use'
UNKNOWN = 'unknown; ask the publisher'
PLAIN = 'ImageNet-1k, 100 epochs'
LONG = 'ImageNet-1k, CutMix, about 300 epochs'
HASH = re.compile(r'-([a-f0-9]{8,64})\.\w+$')  # at the end of a file's name
DATE = re.compile(r'(199\d|20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\d*')  # perhaps with a time, and not a hash


@dataclass(frozen=True)
class Normalization:
    """How a network expects its images: RGB from 0 to 255, minus ``mean``, divided by ``std``."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True)
class Published:
    """Published weights of one architecture."""

    arch: str  # the name in mmres2net.models.ARCHS
    sha256: str  # the first digits of the file's hash, which also end its name
    timm: str = ''  # timm's name of a network whose weights are also published
    recipe: str = PLAIN  # of the training: the authors' answers in issues 38, 67 and 71 of the official code
    licence: str = LICENCE

    @property
    def url(self) -> str:
        """The URL of the file."""
        return f'{HOST}/{self.arch}-{self.sha256}.pth'


PUBLISHED: Mapping[str, Published] = {
    entry.arch: entry
    for entry in (
        Published('res2net50_26w_4s', '06e79181', 'res2net50_26w_4s'),
        Published('res2net50_48w_2s', 'afed724a', 'res2net50_48w_2s'),
        Published('res2net50_14w_8s', '6527dddc', 'res2net50_14w_8s'),
        Published('res2net50_26w_6s', '19041792', 'res2net50_26w_6s'),
        Published('res2net50_26w_8s', '2c7c9f12', 'res2net50_26w_8s'),
        Published('res2net50_18w_6s', 'db17faaa'),
        Published('res2net101_26w_4s', '02a759a1', 'res2net101_26w_4s'),
        Published('res2net50_v1b_26w_4s', '3cf99910', 'res2net50d', LONG),
        Published('res2net101_v1b_26w_4s', '0812c246', 'res2net101d', LONG),
        Published('res2next50_4s', '6ef7e7bf', 'res2next50'),
        Published('res2net_dla60_4s', 'd88db7f9', 'dla60_res2net'),
        Published('res2next_dla60_4s', 'd327927b', 'dla60_res2next'),
    )
}


def find_published(arch: str) -> Published | None:
    """Return the published weights of ``arch``, an official name or timm's alias; None if there are none."""
    find_arch(arch)
    return PUBLISHED.get(ALIASES.get(arch, arch))


def normalization_of(arch: str) -> Normalization | None:
    """Return the normalization for ``arch``, with published weights or not; None for CIFAR networks."""
    return None if find_arch(arch).family == 'cifar' else IMAGENET


def normalization_of_checkpoint(name: str) -> Normalization | None:
    """Return the normalization that a checkpoint was trained with; None if only its owner can know."""
    if name.startswith('timm://'):
        cfg = _timm_cfg(name)
        mean, std = (tuple(round(value * 255, 4) for value in values) for values in (cfg.mean, cfg.std))
        return Normalization(mean, std)
    known = {*PUBLISHED, *(entry.url for entry in PUBLISHED.values())}
    return IMAGENET if ALIASES.get(name, name) in known else None


@dataclass(frozen=True)
class Origin:
    """Where the file of a checkpoint comes from, and where it is kept."""

    urls: tuple[str, ...]  # in the order of trying
    path: Path  # on this machine
    digest: str  # the first digits of its SHA-256; empty: unknown
    licence: str = UNKNOWN  # what it may be used for
    ways_out: tuple[str, ...] = ()  # what else to try if it cannot be downloaded


def fetch_checkpoint(name: str, *, ways_out: Sequence[str] = ()) -> Path:
    """Return the file of a checkpoint, downloaded if it is not on this machine.

    ``name`` is an architecture with published weights, a URL, ``timm://NAME``, one of MMEngine's names
    (``torchvision://``, ``open-mmlab://``, ``mmcls://``) or a path. An interrupted download is resumed. A file gets its
    name when it is complete and has the hash that its name says. Files that torch or MMEngine have downloaded are used.
    A UserError says that there is no such checkpoint, that it cannot be downloaded (and what else the user can do:
    ``ways_out``), or that it is none.
    """
    if name.startswith('timm://'):
        return _fetch_timm(name, ways_out)
    origin = origin_of(name)
    return origin if isinstance(origin, Path) else _fetch_url(origin, ways_out)


def origin_of(name: str) -> Origin | Path:
    """Return where a checkpoint can be downloaded, or the path that ``name`` is."""
    scheme, mark, rest = name.partition('://')
    if not mark:
        return _of_arch(name) if name in (*ARCHS, *ALIASES) else Path(os.path.expanduser(name))
    if scheme in ('http', 'https'):
        return _of_url(name)
    if scheme in ('torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls'):
        return _of_mmengine(scheme, rest)
    what = f'{name}: name weights by an architecture ({", ".join([*PUBLISHED][:2])}, ...), a path, a URL, timm://NAME'
    raise UserError(f'{what}, torchvision://NAME or open-mmlab://NAME; download others and name the file')


def cache_folder() -> Path:
    """Return the folder of downloaded checkpoints, which is torch's; ``TORCH_HOME`` moves it."""
    return Path(torch.hub.get_dir()) / 'checkpoints'


def _of_arch(name: str) -> Origin:
    entry = find_published(name)
    if entry is None:
        what = f'{name} has no published weights'
        raise UserError(f'{what}; these have: {", ".join(PUBLISHED)}. A file of this name is ./{name}')
    file = entry.url.rpartition('/')[2]
    mirrors = tuple(f'{mirror.rstrip("/")}/{file}' for mirror in os.environ.get(MIRRORS, '').split())
    ways = [f'or name a mirror, a folder with files of these names: {MIRRORS}=https://HOST/FOLDER']
    ways += [f"or use timm's weights of the same network: timm://{entry.timm}"] if entry.timm else []
    return Origin((*mirrors, entry.url), cache_folder() / file, entry.sha256, entry.licence, tuple(ways))


def _of_url(url: str) -> Origin:
    file = Path(unquote(urlparse(url).path)).name
    if file in ('', '..') or '\\' in file or not file.isprintable():
        raise UserError(f'{url} names no file; give the URL of a checkpoint')
    licence = next((entry.licence for entry in PUBLISHED.values() if entry.url == url), UNKNOWN)
    found = HASH.search(file)
    if found and not DATE.fullmatch(found[1]):
        return Origin((url,), cache_folder() / file, found[1], licence)
    # The name alone identifies no file: model.pth of two projects must not be confused.
    folder = hashlib.sha256(url.encode()).hexdigest()[:12]
    return Origin((url,), cache_folder() / 'by_url' / folder / file, '')


def _of_mmengine(scheme: str, name: str) -> Origin | Path:
    from mmengine.runner import checkpoint

    own = {'mmcls': 'get_mmcls_models', 'open-mmlab': 'get_external_models', 'openmmlab': 'get_external_models'}
    table = getattr(checkpoint, own.get(scheme, 'get_torchvision_models'))()
    name = checkpoint.get_deprecated_model_names().get(name, name) if 'mmlab' in scheme else name
    if name not in table:
        raise UserError(f'{scheme}://{name}: there are no weights of this name')
    place = str(table[name])
    return _of_url(place) if '://' in place else Path(place)


def _fetch_url(origin: Origin, ways_out: Sequence[str]) -> Path:
    path, folder = origin.path, origin.path.parent
    ways = (f'or download it by other means and put it at {path}', *origin.ways_out, *ways_out)
    remote = Remote(path.name, origin.urls, None, origin.digest, 'sha256', ways)
    try:
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            # all processes of a run want the same file at once
            with locked(folder, f'waiting for another process that downloads into {folder}', wait=True):
                if not path.is_file():
                    fetch(remote, folder)
                    try:
                        check_file(path)
                    except UserError as error:
                        path.unlink()
                        what = f'{origin.urls[-1]} did not return a checkpoint; the download was deleted'
                        raise UserError(f'{what}. {error}') from error
                    log(f'kept at {path}; licence: {origin.licence}')
                    return path
        fault = damage(path, remote)
    except OSError as error:
        raise disk_error(error, folder) from error
    if fault:
        raise UserError(f'{path} is not the file that its name says: {fault}; delete it to download it again')
    return path


def _fetch_timm(name: str, ways_out: Sequence[str]) -> Path:
    cfg = _timm_cfg(name)
    if not cfg.hf_hub_id:
        raise UserError(f'{name}: timm has this network, but no weights for it')
    from huggingface_hub import hf_hub_download

    repository, _, revision = cfg.hf_hub_id.partition('@')
    file = cfg.hf_hub_filename or 'model.safetensors'
    licence = cfg.license if cfg.license and cfg.license != 'unknown' else UNKNOWN
    log(f'{name} is {file} of {repository} on the Hugging Face hub; licence: {licence}')
    try:
        path = Path(hf_hub_download(repository, file, revision=revision or None))
    except Exception as error:  # whatever the network does: the ways out are the same
        ways = ('try again later', 'or name a mirror of the hub: HF_ENDPOINT=https://HOST', *ways_out)
        listed = ''.join(f'\n  - {way}' for way in ways)
        raise UserError(f'{name} cannot be downloaded: {type(error).__name__}: {error}{listed}') from error
    check_file(path)
    return path


def _timm_cfg(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"{name} needs timm, which is not installed: pip install 'timm>=1.0.11'") from error
    model = name.removeprefix('timm://')
    try:
        return timm.get_pretrained_cfg(model, allow_unregistered=False)
    except RuntimeError as error:
        near = ', '.join(timm.list_pretrained(f'{model.partition(".")[0]}*') or timm.list_pretrained('*res2ne*'))
        raise UserError(f'{name}: timm has no weights of this name; it has {near}') from error
