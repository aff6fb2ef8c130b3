"""From the name of a checkpoint to a file on this machine: downloaded once, verified, kept where torch keeps its own.

A name is an architecture with published weights (``res2net50_26w_4s``), an https address, ``timm://NAME``, one of
MMEngine's names (``torchvision://``, ``open-mmlab://``, ``mmcls://``) or a path.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch

from mmres2net.errors import UserError
from mmres2net.fetch.download import Patience, Remote, damage, fetch
from mmres2net.fetch.progress import log
from mmres2net.files import disk_error, locked
from mmres2net.models.arch import ALIASES, ARCHS
from mmres2net.weights.published import PUBLISHED, Pixels, find_published
from mmres2net.weights.reading import check_file

MIRRORS = 'MMRES2NET_WEIGHTS_MIRRORS'  # addresses of folders with the same files, separated by blanks, tried first
PATIENCE = Patience(tries=3)
UNKNOWN = 'unknown; ask those who publish them'
# timm's names of networks with published weights, where they are not ours.
TIMM_NAMES = {
    'res2next50_4s': 'res2next50',
    'res2net_dla60_4s': 'dla60_res2net',
    'res2next_dla60_4s': 'dla60_res2next',
    'res2net50_v1b_26w_4s': 'res2net50d',
    'res2net101_v1b_26w_4s': 'res2net101d',
}
NOT_IN_TIMM = ('res2net50_18w_6s',)


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint's file comes from and where it is kept.

    Attributes:
        urls: Addresses, in the order of trying.
        path: The file on this machine.
        digest: The first digits of its SHA-256, which end its name; empty where the name has none.
        licence: What it may be used for.
        ways_out: What else to try where it cannot be fetched.
    """

    urls: tuple[str, ...]
    path: Path
    digest: str
    licence: str = UNKNOWN
    ways_out: tuple[str, ...] = ()


def fetch_checkpoint(name: str, *, ways_out: Sequence[str] = ()) -> Path:
    """Return the file of the checkpoint ``name``; it is downloaded if it is not on this machine.

    Downloads are continued where they broke off, verified against the hash in the file's name, and take their name
    only then. The folder is torch's (``torch.hub.get_dir()/checkpoints``), so what torch or MMEngine has fetched is
    used; timm's are in the cache of huggingface_hub. The licence is printed when a file is downloaded.

    Args:
        name: See the module.
        ways_out: What else the user can do where it cannot be fetched, for the message.

    Raises:
        UserError: No such checkpoint, it cannot be fetched, or what came is none.
    """
    if name.startswith('timm://'):
        return _fetch_timm(name, ways_out)
    origin = origin_of(name)
    return origin if isinstance(origin, Path) else _fetch_url(origin, ways_out)


def origin_of(name: str) -> Origin | Path:
    """Return where a checkpoint is to be had, or the path that ``name`` is.

    Raises:
        UserError: ``name`` is none of the names in the module's description.
    """
    scheme, mark, rest = name.partition('://')
    if not mark:
        return _published(name) or Path(os.path.expanduser(name))
    if scheme in ('http', 'https'):
        return _of_url(name)
    if scheme in ('torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls'):
        return _of_mmengine(scheme, rest)
    raise UserError(
        f'{name}: weights are named by an architecture ({", ".join([*PUBLISHED][:2])}, ...), a path, an https address, '
        'timm://NAME, torchvision://NAME or open-mmlab://NAME; fetch others and name the file'
    )


def cache_folder() -> Path:
    """Return the folder of downloaded checkpoints, torch's own; ``TORCH_HOME`` moves it."""
    return Path(torch.hub.get_dir()) / 'checkpoints'


def _published(name: str) -> Origin | None:
    if name not in ARCHS and name not in ALIASES:
        return None
    row = find_published(name)
    if row is None:
        raise UserError(
            f'{name} has no published weights; those who have: {", ".join(PUBLISHED)}. A file of that name is ./{name}'
        )
    file = row.url.rpartition('/')[2]
    mirrors = tuple(f'{mirror.rstrip("/")}/{file}' for mirror in os.environ.get(MIRRORS, '').split())
    ways = [f'or name a mirror, a folder with files of these names: {MIRRORS}=https://HOST/FOLDER']
    if row.arch not in NOT_IN_TIMM:
        ways.append(f"or take timm's weights of the same network: timm://{TIMM_NAMES.get(row.arch, row.arch)}")
    return Origin((*mirrors, row.url), cache_folder() / file, row.sha256, row.licence, tuple(ways))


def _of_url(url: str) -> Origin:
    file = Path(unquote(urlparse(url).path)).name
    if file in ('', '..') or '\\' in file or not file.isprintable():
        raise UserError(f'{url} names no file; give the address of a checkpoint')
    for row in PUBLISHED.values():
        if row.url == url:
            return Origin((url,), cache_folder() / file, row.sha256, row.licence)
    found = re.search(r'-([a-f0-9]{8,64})\.\w+$', file)
    if found:
        return Origin((url,), cache_folder() / file, found[1])
    # Without a hash the name says nothing: two projects' model.pth must not be taken for each other.
    address = hashlib.sha256(url.encode()).hexdigest()[:12]
    return Origin((url,), cache_folder() / 'by_address' / address / file, '')


def _of_mmengine(scheme: str, name: str) -> Origin | Path:
    from mmengine.runner import checkpoint

    if scheme in ('torchvision', 'modelzoo'):
        table = checkpoint.get_torchvision_models()
    elif scheme == 'mmcls':
        table = checkpoint.get_mmcls_models()
    else:
        table = checkpoint.get_external_models()
        name = checkpoint.get_deprecated_model_names().get(name, name)
    if name not in table:
        raise UserError(f'{scheme}://{name}: there are no weights of this name')
    address = str(table[name])
    if urlparse(address).scheme in ('http', 'https'):
        return _of_url(address)
    home = os.environ.get('MMENGINE_HOME') or Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')) / 'mmengine'
    return Path(os.path.expanduser(home)) / address


def _fetch_url(origin: Origin, ways_out: Sequence[str]) -> Path:
    path = origin.path
    ways = (f'or fetch it by other means and put it at {path}', *origin.ways_out, *ways_out)
    remote = Remote(path.name, origin.urls, None, origin.digest, 'sha256', ways)
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            # all processes of a run want the same file at once
            with locked(path.parent, f'waiting for another process that downloads into {path.parent}', wait=True):
                if not path.is_file():
                    fetch(remote, path.parent, PATIENCE)
                    _keep_if_checkpoint(path, origin)
                    return path
        fault = damage(path, remote)
    except OSError as error:
        raise disk_error(error, path.parent) from error
    if fault:
        raise UserError(f'{path} is not the file that its name says: {fault}; delete it, and it is fetched again')
    return path


def _keep_if_checkpoint(path: Path, origin: Origin) -> None:
    try:
        check_file(path)
    except UserError as error:
        path.unlink()
        raise UserError(f'{origin.urls[-1]} gives no checkpoint, and what came is removed. {error}') from error
    log(f'kept at {path}; licence: {origin.licence}')


def _fetch_timm(name: str, ways_out: Sequence[str]) -> Path:
    cfg = _timm_cfg(name)
    if not cfg.hf_hub_id:
        if not cfg.url:
            raise UserError(f'{name}: timm has this network, but no weights of it')
        return _fetch_url(_of_url(cfg.url), ways_out)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository, _, revision = cfg.hf_hub_id.partition('@')
    file = cfg.hf_hub_filename or 'model.safetensors'
    known = isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str)
    if not known:
        log(f'fetching {file} of {repository} from the Hugging Face hub; licence: {_timm_licence(cfg)}')
    try:
        path = Path(hf_hub_download(repository, file, revision=revision or None, local_files_only=known))
    except Exception as error:  # whatever the network does: the ways out are the same
        listed = '\n'.join(f'  - {way}' for way in (*_HUB_WAYS, *ways_out))
        raise UserError(f'{name} cannot be fetched: {type(error).__name__}: {error}\n{listed}') from error
    check_file(path)
    return path


_HUB_WAYS = (
    'run the same command later: it continues',
    'or name a mirror of the hub: HF_ENDPOINT=https://HOST',
    'behind a proxy, set http_proxy and https_proxy',
)


def _timm_licence(cfg: Any) -> str:
    return cfg.license if cfg.license and cfg.license != 'unknown' else UNKNOWN


def _timm_cfg(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"{name} needs timm, which is not installed: pip install 'timm>=1.0.11'") from error
    model = name.removeprefix('timm://')
    if not timm.is_model(model):
        near = ', '.join(timm.list_models('*res2ne*'))
        raise UserError(f'{name}: timm has no network of this name; its Res2Nets: {near}')
    try:
        return timm.get_pretrained_cfg(model, allow_unregistered=False)
    except RuntimeError as error:
        tags = ', '.join(timm.list_pretrained(f'{model.partition(".")[0]}*')) or 'none'
        raise UserError(f'{name}: timm has no weights of this name; of this network: {tags}') from error


def timm_pixels(name: str) -> Pixels:
    """Return the pixels that the weights ``timm://NAME`` want, by timm's table.

    Raises:
        UserError: timm is not installed, or has no such weights.
    """
    cfg = _timm_cfg(name)

    def scaled(values: Sequence[float]) -> tuple[float, float, float]:
        red, green, blue = (round(value * 255, 4) for value in values)
        return red, green, blue

    return Pixels(scaled(cfg.mean), scaled(cfg.std))
