"""Weights are fetched and looked at before a run, over real HTTP on this machine."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmres2net.engine.weights import check_checkpoint, fetch_weights
from mmres2net.errors import UserError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / 'served'
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Quiet) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{httpd.server_port}', folder
        httpd.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[Path]:
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / 'hub'))
    yield tmp_path / 'hub' / 'checkpoints'
    torch.hub.set_dir(before)


def config(checkpoint: str) -> Config:
    return Config(dict(model=dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint)))))


def save(path: Path) -> str:
    """Write a checkpoint and return the beginning of its hash."""
    torch.save({'conv1.weight': torch.ones(2, 2)}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def test_fetched_once_with_its_hash(server: tuple[str, Path], cache: Path) -> None:
    url, folder = server
    digest = save(folder / 'plain.pth')
    name = f'net-{digest}.pth'
    (folder / 'plain.pth').rename(folder / name)
    fetch_weights(config(f'{url}/{name}'))
    assert (cache / name).is_file()
    (folder / name).unlink()
    fetch_weights(config(f'{url}/{name}'))  # from the cache


def test_unreachable_weights_name_three_ways_out(server: tuple[str, Path], cache: Path) -> None:
    url, _ = server
    with pytest.raises(UserError) as caught:
        fetch_weights(config(f'{url}/net-0123abcd.pth'))
    text = str(caught.value)
    assert '404' in text
    assert str(cache / 'net-0123abcd.pth') in text
    assert '--cfg-options model.backbone.init_cfg.checkpoint=FILE' in text
    assert '--from-scratch' in text


def test_wrong_hash_leaves_nothing(server: tuple[str, Path], cache: Path) -> None:
    url, folder = server
    save(folder / 'net-0123abcd.pth')
    with pytest.raises(UserError, match='invalid hash value'):
        fetch_weights(config(f'{url}/net-0123abcd.pth'))
    assert not list(cache.iterdir())


def test_web_page_saved_as_weights(server: tuple[str, Path]) -> None:
    url, folder = server
    (folder / 'net.pth').write_text('<html>moved</html>')
    with pytest.raises(UserError, match=r'not a whole checkpoint: it begins with'):
        fetch_weights(config(f'{url}/net.pth'))


def test_names_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'no checkpoint at .*absent\.pth \(named by model\.backbone\.init_cfg'):
        fetch_weights(config(str(tmp_path / 'absent.pth')))
    with pytest.raises(UserError, match='torchvision has no weights of this name'):
        fetch_weights(config('torchvision://resnet5'))
    with pytest.raises(UserError, match='file, an https address or torchvision'):
        fetch_weights(config('open-mmlab://res2net101_v1d_26w_4s'))


def test_whole_checkpoints_pass(tmp_path: Path) -> None:
    save(tmp_path / 'new.pth')
    torch.save({'a': torch.ones(1)}, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    for name in ('new.pth', 'old.pth'):
        assert check_checkpoint(tmp_path / name, 'test') == tmp_path / name


def test_truncated_and_damaged_checkpoints(tmp_path: Path) -> None:
    whole = tmp_path / 'whole.pth'
    torch.save({'a': torch.arange(4096.0)}, whole)
    content = bytearray(whole.read_bytes())
    (tmp_path / 'cut.pth').write_bytes(content[: len(content) // 2])
    content[len(content) // 2] ^= 0xFF
    (tmp_path / 'damaged.pth').write_bytes(content)
    (tmp_path / 'empty.pth').write_bytes(b'')
    for name in ('cut.pth', 'damaged.pth', 'empty.pth'):
        with pytest.raises(UserError, match=rf'{name} \(to resume\) is not a whole checkpoint'):
            check_checkpoint(tmp_path / name, 'to resume')
