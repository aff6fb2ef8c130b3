"""Names of checkpoints to files: over real HTTP, from the cache, from mirrors, and what each name means."""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from mmres2net.errors import UserError
from mmres2net.weights import fetching
from mmres2net.weights.fetching import PUBLISHED, Origin, Published, fetch_checkpoint, origin_of
from tests.support.archive_server import Server, retry_soon, serving

ARCH = 'res2net50_26w_4s'


def saved() -> bytes:
    buffer = io.BytesIO()
    torch.save({'conv1.weight': torch.rand(100, 100)}, buffer)
    return buffer.getvalue()


CONTENT = saved()
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]
NAME = f'net-{DIGEST}.pth'


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.files[NAME] = CONTENT
        yield running


@pytest.fixture(autouse=True)
def cache(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    retry_soon(monkeypatch)
    monkeypatch.delenv(fetching.MIRRORS, raising=False)
    return hub


def test_fetched_once_and_licence_said_once(server: Server, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fetch_checkpoint(server.url(NAME))
    assert (path, path.read_bytes()) == (cache / NAME, CONTENT)
    assert f'kept at {path}; licence: unknown' in capsys.readouterr().err
    asked = len(server.log)
    assert fetch_checkpoint(server.url(NAME)) == path
    assert (len(server.log), capsys.readouterr().err) == (asked, '')


def test_another_file_is_not_kept(server: Server, cache: Path) -> None:
    page = (b'<html>sign in</html>', 'sign in')
    for name, (content, words) in {'net-0123abcd.pth': (CONTENT, f'{DIGEST}, not 0123abcd'), 'model.pth': page}.items():
        server.files[name] = content
        with pytest.raises(UserError, match=words):
            fetch_checkpoint(server.url(name))
    assert not [path for path in cache.rglob('*') if path.is_file()]


def test_damaged_file_in_the_cache_is_named_and_kept(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(b'mine')
    with pytest.raises(UserError, match='SHA256') as caught:
        fetch_checkpoint(server.url(NAME))
    assert str(cache / NAME) in str(caught.value)
    assert (cache / NAME).read_bytes() == b'mine'


def test_files_without_a_hash_are_not_taken_for_each_other_or_continued(server: Server) -> None:
    other = saved()
    server.files |= {'one/model.pth': CONTENT, 'two/model.pth': other}
    found = [fetch_checkpoint(server.url(f'{folder}/model.pth')).read_bytes() for folder in ('one', 'two')]
    assert found == [CONTENT, other]
    server.files['model.pth'] = CONTENT
    path = fetch_checkpoint(server.url('model.pth'))
    path.rename(path.with_name('model.pth.part'))
    assert fetch_checkpoint(server.url('model.pth')).read_bytes() == CONTENT
    assert server.ranges('model.pth') == [None] * 2


DATES = ('20230101', '20191231235959', '199907041200')


@pytest.mark.parametrize('digits', [*DATES, '19041792', '12345678', '20231301', '2023010a', '0' * 64])
def test_digits_of_a_name_are_a_hash_unless_they_are_a_date(cache: Path, digits: str) -> None:
    url = f'https://host/net-{digits}.pth'
    found = origin_of(url)
    assert isinstance(found, Origin)
    assert (found.urls, found.digest) == ((url,), '' if digits in DATES else digits)
    assert (found.path == cache / f'net-{digits}.pth') is (digits not in DATES)


@pytest.fixture
def published(server: Server, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The row of an architecture, whose file has the content that is served here."""
    row = replace(PUBLISHED[ARCH], sha256=DIGEST)
    server.files[f'down/{ARCH}-{DIGEST}.pth'] = CONTENT
    monkeypatch.setattr(Published, 'url', property(lambda self: server.url(f'official/{self.arch}-{self.sha256}.pth')))
    monkeypatch.setattr(fetching, 'PUBLISHED', {ARCH: row})
    monkeypatch.setattr(fetching, 'find_published', lambda _: row)
    return row


def test_architecture_from_a_mirror(server, published, cache, monkeypatch, capsys) -> None:
    monkeypatch.setenv(fetching.MIRRORS, f'{server.url("empty")} {server.url("down")}/')
    assert fetch_checkpoint('res2net50') == cache / f'{ARCH}-{DIGEST}.pth'
    assert [path.split('/')[0] for path, _ in server.log] == ['empty', 'down']
    assert 'licence: CC BY-NC-SA 4.0' in capsys.readouterr().err


def test_architecture_that_nobody_gives(published: Published, cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch_checkpoint(ARCH)
    ways_out = (str(cache / f'{ARCH}-{DIGEST}.pth'), fetching.MIRRORS, f'timm://{ARCH}')
    assert [way for way in ways_out if way not in str(caught.value)] == []


def test_timm_has_the_networks_that_the_way_out_names() -> None:
    import timm

    assert [entry for entry in PUBLISHED.values() if entry.timm and not timm.is_model_pretrained(entry.timm)] == []
    assert [entry.arch for entry in PUBLISHED.values() if not entry.timm] == ['res2net50_18w_6s']
    assert not timm.is_model('res2net50_18w_6s')
    assert fetching.normalization_of_checkpoint('timm://res2net50_26w_4s') == fetching.IMAGENET


def test_what_a_name_means(cache: Path) -> None:
    assert origin_of('some/file.pth') == Path('some/file.pth')
    assert origin_of('~/file.pth') == Path.home() / 'file.pth'
    resnet = origin_of('torchvision://resnet50')
    name = 'resnet50-0676ba61.pth'
    assert resnet == Origin((f'https://download.pytorch.org/models/{name}',), cache / name, '0676ba61')
    mmdet = origin_of('open-mmlab://res2net101_v1d_26w_4s')
    assert isinstance(mmdet, Origin)
    assert mmdet.urls[0].endswith('/res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth')


@pytest.mark.parametrize(('name', 'wanted'), [
    ('se_res2net50_26w_4s', 'res2net50_26w_4s, res2net50_48w_2s'), ('s3://bucket/file.pth', 's3://bucket/file.pth'),
    ('https://host.invalid/', 'https://host.invalid/'), ('https://host.invalid/%2e%2e', 'https://host.invalid/'),
    ('timm://res2net', 'res2net50_26w_4s'), ('timm://res2net50_26w_4s.none', 'res2net50_26w_4s.in1k'),
    ('timm://res2net50_26w_4s', 'needs timm'),
])  # fmt: skip
def test_names_that_mean_nothing(name: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if wanted == 'needs timm':
        monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(UserError, match=wanted):
        fetch_checkpoint(name)


HUB = """
from mmres2net.weights.fetching import fetch_checkpoint
from mmres2net.weights.reading import read_checkpoint
path = fetch_checkpoint('timm://res2net50_26w_4s')
assert list(read_checkpoint(path)) == ['conv1.weight']
assert fetch_checkpoint('timm://res2net50_26w_4s') == path
try:
    fetch_checkpoint('timm://res2net50_14w_8s')
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_timm_over_a_hub(server: Server, tmp_path: Path) -> None:
    """The real client of the hub against a small one on this machine; the second network is not on it."""
    place = 'timm/res2net50_26w_4s.in1k/resolve/main/model.safetensors'
    server.files[place] = save({'conv1.weight': torch.ones(2)})
    env = {**os.environ, 'HF_ENDPOINT': server.base, 'HF_HOME': str(tmp_path), 'HF_HUB_DISABLE_XET': '1'}
    done = subprocess.run([sys.executable, '-c', HUB], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith('timm://res2net50_14w_8s cannot be downloaded: '), done.stderr
    assert 'HF_ENDPOINT' in done.stdout
    assert [path for path, _ in server.log if '26w' in path][:2] == [place] * 2  # HEAD and GET
    assert f'model.safetensors of {place[:26]}' in done.stderr
