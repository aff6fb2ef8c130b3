"""Files that are no checkpoints, broken or hostile: one clear error each, and nothing of them is run."""

import io
import os
import pickle
import resource
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmres2net.errors import UserError
from mmres2net.weights.reading import read_checkpoint
from tests.support.archive_server import tar_of, zip_of
from tests.support.hostile import Payload, hostile, plain_pickle, with_pickle, works

WEIGHTS = OrderedDict(
    {'conv1.weight': torch.arange(24.0).reshape(2, 3, 2, 2), 'bn1.num_batches_tracked': torch.tensor(7)}
)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def check_weights(found: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(WEIGHTS)
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in WEIGHTS.items())


def test_both_forms_of_torch_and_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.save(WEIGHTS, tmp_path / 'new.pth')
    torch.save(WEIGHTS, tmp_path / 'old.pt', _use_new_zipfile_serialization=False)
    save_file(WEIGHTS, tmp_path / 'net.safetensors')
    save_file(WEIGHTS, tmp_path / 'safetensors.pth')  # by content, not by name
    for name in ('new.pth', 'old.pt', 'net.safetensors', 'safetensors.pth'):
        found = read_checkpoint(tmp_path / name)
        check_weights({key: found[key] for key in WEIGHTS})
        assert len(found) == len(WEIGHTS)


def record() -> dict[str, object]:
    buffer = HistoryBuffer([1.5, 2.5, 4.0], [1, 1, 2], max_length=5)
    twice = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {
        'state_dict': WEIGHTS,
        'meta': {'epoch': 3, 'seed': None, 'dataset_meta': {'CLASSES': ('cat', 'dog'), 'palette': twice}},
        'message_hub': {
            'log_scalars': OrderedDict({'train/loss': buffer}),
            'runtime_info': {'eta': np.float64(2.25), 'order': np.asfortranarray(twice), 'flag': np.bool_(True)},
            'pair': (twice, np.int64(-3)),
        },
        'optimizer': {'state': {0: {'step': 4}}, 'param_groups': [{'betas': (0.9, 0.99)}]},
        'param_schedulers': [{'milestones': Counter({8: 1, 11: 2})}],
    }


@pytest.mark.parametrize('new', [True, False])
def test_records_of_a_run_come_back_as_they_were(tmp_path: Path, new: bool) -> None:
    torch.save(record(), tmp_path / 'epoch_3.pth', _use_new_zipfile_serialization=new)
    found = read_checkpoint(tmp_path / 'epoch_3.pth')
    check_weights(found['state_dict'])
    assert found['meta']['dataset_meta']['CLASSES'] == ('cat', 'dog')
    buffer = found['message_hub']['log_scalars']['train/loss']
    assert type(buffer) is HistoryBuffer
    assert [values.tolist() for values in buffer.data] == [[1.5, 2.5, 4.0], [1, 1, 2]]
    assert (buffer.current(), buffer.max_length, buffer.statistics('max')) == (4.0, 5, 4.0)
    info = found['message_hub']['runtime_info']
    assert (type(info['eta']), info['eta'], type(info['flag'])) == (np.float64, 2.25, np.bool_)
    for array in (found['meta']['dataset_meta']['palette'], info['order'], found['message_hub']['pair'][0]):
        assert type(array) is np.ndarray
        assert (array.dtype, array.tolist()) == (np.float32, [[0, 1, 2], [3, 4, 5]])
    assert found['message_hub']['pair'][0] is found['meta']['dataset_meta']['palette']  # shared, as it was saved
    assert found['optimizer']['param_groups'] == [{'betas': (0.9, 0.99)}]
    assert found['param_schedulers'] == [{'milestones': Counter({8: 1, 11: 2})}]  # of MultiStepLR
    found['meta']['dataset_meta']['palette'][0, 0] = 9  # it can be written to
    torch.save(found, tmp_path / 'again.pth')  # a run that goes on writes what it has read
    assert read_checkpoint(tmp_path / 'again.pth')['message_hub']['log_scalars']['train/loss'].min() == 1.5


@pytest.mark.parametrize('legacy', [False, True])
def test_hostile_checkpoint_is_named_and_not_run(tmp_path: Path, legacy: bool) -> None:
    marker = tmp_path / 'marker'
    path = hostile(tmp_path / 'net.pth', marker, legacy=legacy)
    works(path, marker)
    text = refusal(path)
    assert 'posix.system' in text
    assert '--allow-unsafe-checkpoint' in text
    assert not marker.exists()
    assert read_checkpoint(path, allow_pickle=True)['meta'] == 0  # what os.system returns
    marker.unlink()
    plain_pickle(path, marker)
    assert 'posix.system' in refusal(path)
    with_pickle(path, pickle.dumps({'meta': Payload(marker)}, protocol=4))  # its STACK_GLOBAL is not read by torch
    assert 'posix.system' in refusal(path)
    assert not marker.exists()


def program(*steps: bytes) -> bytes:
    return b'\x80\x02' + b''.join(steps) + b'.'


def call(name: bytes, arguments: bytes) -> bytes:
    return b'c' + name.replace(b' ', b'\n') + b'\n' + b'(' + arguments + b'tR'


HISTORY = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
NUMPY_BYTES = b'cnumpy\nndarray\n'
ATTACKS = {
    # The way in through MMEngine's own list of "safe" globals: getattr reaches the builtins of any function.
    'builtins of a function': program(
        call(
            b'builtins getattr',
            call(b'builtins getattr', HISTORY + b'X\x04\x00\x00\x00mean') + b'X\x0c\x00\x00\x00__builtins__',
        ),
        b'X\x03\x00\x00\x00abcK\x01s',
    ),
    'getattr of a tensor class': program(call(b'builtins getattr', b'ctorch\nTensor\nX\x08\x00\x00\x00__init__')),
    'numpy type of objects': program(call(b'numpy dtype', b'X\x01\x00\x00\x00O')),
    'numpy type of fields': program(call(b'numpy dtype', b'X\x02\x00\x00\x00V8')),
    'numpy type with the state of another': program(
        call(b'numpy dtype', b'X\x02\x00\x00\x00f8'),
        b'(K\x03X\x01\x00\x00\x00<X\x01\x00\x00\x00aNN' + b'J\xff\xff\xff\xff' * 2 + b'K?tb'
    ),
    'array of another class': program(
        call(b'numpy._core.multiarray _reconstruct', b'ctorch\nTensor\n(K\x00tX\x01\x00\x00\x00b')
    ),
    'array with too few bytes': program(
        call(b'numpy._core.multiarray _reconstruct', NUMPY_BYTES + b'(K\x00tX\x01\x00\x00\x00b'),
        b'(K\x01(J\x00\x00\x00\x7ft', call(b'numpy dtype', b'X\x02\x00\x00\x00f8'), b'\x89X\x00\x00\x00\x00tb',
    ),
    'history that is none': program(HISTORY, b')\x81}X\x0c\x00\x00\x00_log_historyK\x01sb'),
    'endless': program(b']' * 50_000, b'a' * 49_999), 'holds itself': program(b'}q\x00X\x01\x00\x00\x00ah\x00s'),
    'calls nothing': program(b'K\x01)R'), 'cut short': b'\x80\x02}', 'no pickle': b'\xff' * 100,
}  # fmt: skip


@pytest.mark.parametrize('attack', ATTACKS)
def test_pickles_written_by_hand(tmp_path: Path, attack: str) -> None:
    path = with_pickle(tmp_path / 'net.pth', ATTACKS[attack])
    before = dict(HistoryBuffer._statistics_methods)
    assert len(refusal(path)) < 800
    assert HistoryBuffer._statistics_methods == before
    assert 'abc' not in vars(__import__('builtins'))


def overlapping(path: Path) -> None:
    """Two parts in the directory that share the same bytes, as bombs without compression do."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr('archive/data.pkl', bytes(5000))
        info = archive.infolist()[0]
        for copy in range(3):
            other = zipfile.ZipInfo(f'archive/data/{copy}')
            other.header_offset, other.CRC = info.header_offset, info.CRC
            other.compress_size = other.file_size = info.file_size
            archive.filelist.append(other)
        archive._didModify = True
    path.write_bytes(buffer.getvalue())


def encrypted(path: Path) -> None:
    torch.save(WEIGHTS, path)
    content = bytearray(path.read_bytes())
    directory = content.index(b'PK\x01\x02')
    content[directory + 8] |= 1  # the flag of the first part
    path.write_bytes(content)


def content_is(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


STRANGERS: dict[str, tuple[Callable[[Path], object], str]] = {
    'page.pth': (content_is(b'\n<!DOCTYPE html><html>moved</html>'), '<!DOCTYPE html>'),
    'empty.pth': (content_is(b''), "b''"),
    'page.safetensors': (content_is(b'<html>moved</html>'), '<html>'),
    'lying.safetensors': (content_is(b'\xff\xff\xff\xff\x00\x00\x00\x00{"a"'), "b'\\xff"),
    'bomb.pth': (content_is(zip_of({'archive/data.pkl': bytes(10**6)})), "'archive/data.pkl'"),
    'overlap.pth': (overlapping, 'larger than the file'),
    'photos.pth': (content_is(zip_of({'a.jpg': b'1'})), 'torch.save did not write'),
    'encrypted.pth': (encrypted, 'encrypted'),
    # torch reads the pickle in its old form, and Python's zipfile finds the zip behind it
    'pickle_before_zip.pth': (content_is(pickle.dumps({'a': 1}, protocol=2) + zip_of({'a.txt': b'x'})), 'pickle'),
    'old.pth': (content_is(tar_of({'storages': b''})), "b'storages"),
    'script.pt': (lambda path: torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), path), 'TorchScript'),
    'module.pth': (lambda path: torch.save(torch.nn.Linear(2, 2), path), 'torch.nn.modules.linear.Linear'),
    'list.pth': (lambda path: torch.save([1], path), 'builtins.list'),
    'nothing.pth': (lambda path: torch.save({}, path), 'nothing'),
}


@pytest.mark.parametrize('name', STRANGERS)
@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore:Duplicate name', 'ignore::ResourceWarning')
def test_strangers(tmp_path: Path, name: str) -> None:
    make, wanted = STRANGERS[name]
    make(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    assert wanted in refusal(tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize('form', ['new', 'old', 'safetensors'])
@pytest.mark.parametrize('kept', [0.02, 0.5, 0.98])
def test_cut_short(tmp_path: Path, form: str, kept: float) -> None:
    from safetensors.torch import save_file

    path = tmp_path / ('net.safetensors' if form == 'safetensors' else 'net.pth')
    weights = {str(index): torch.rand(64) for index in range(20)}
    if form == 'safetensors':
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=form == 'new')
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert '--allow-unsafe-checkpoint' not in refusal(path)


def test_damaged_and_absent(tmp_path: Path) -> None:
    torch.save({'a': torch.arange(4096.0)}, tmp_path / 'net.pth')
    content = bytearray((tmp_path / 'net.pth').read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / 'net.pth').write_bytes(content)
    assert 'net/data/0' in refusal(tmp_path / 'net.pth')
    refusal(tmp_path / 'absent.pth')
    refusal(Path('~nobody_of_this_name/a.pth'))
    refusal(tmp_path)


def nested(kind: Callable[[list], object], leaf: object = 1.5) -> object:
    """Ten levels of ten references: 10 ** 10 leaves."""
    for _ in range(10):
        leaf = kind([leaf] * 10)
    return leaf


def views() -> dict[str, torch.Tensor]:
    shared = torch.zeros(2**20)
    return {str(i): shared.view(2, -1) for i in range(2000)}


EXPANDING: dict[str, Callable[[], object]] = {
    'lists': lambda: nested(list), 'tuples': lambda: nested(tuple),
    'dicts': lambda: nested(lambda values: dict(enumerate(values))), 'a long text': lambda: ['x' * 10**6] * 10**5,
    'one number as terabytes': lambda: torch.zeros(1).expand(10**6, 10**6),
    'one number, repeated': lambda: [torch.zeros(1).expand(10**4, 10**4)] * 50, 'views of the same numbers': views,
    'sparse': lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6)), 'zeros': lambda: bytearray(10),
    'depth': lambda: reduce(lambda inner, _: [inner], range(150), []),
    'tensor without data': lambda: torch.zeros(2, device='meta'),
}  # fmt: skip


@pytest.mark.parametrize('new', [True, False])
@pytest.mark.parametrize('bomb', EXPANDING)
def test_bombs_are_refused_at_once(tmp_path: Path, bomb: str, new: bool) -> None:
    """Memory and time stay those of the file: a hash or a copy of these would take hours or terabytes."""
    content = {'state_dict': WEIGHTS, 'meta': {'dataset_meta': EXPANDING[bomb]()}}
    torch.save(content, tmp_path / 'net.pth', _use_new_zipfile_serialization=new)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(tmp_path / 'net.pth')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kilobytes


TEXT = b'X\x01\x00\x00\x00a'
# Tuples of tuples, which are hashed as a whole where they are keys; Python itself could not write these.
TUPLES = b'K\x01' + b''.join(b'q' + bytes([i]) + b'0(' + (b'h' + bytes([i])) * 10 + b't' for i in range(10))
HEX = b'c_codecs\nencode\n(' * 60 + TEXT + b'X\x03\x00\x00\x00hextR' * 60
ENDLESS = {
    'tuples as keys': b'}' + TEXT + b'}' + TUPLES + b'K\x01ss',
    'tuples in a set': b'}' + TEXT + b'c__builtin__\nset\n(](' + TUPLES + b'etRs',
    'one key again and again': b''.join(
        [b'}', TEXT, b'}(', b'K\x01' * 10**4, b'tq\x01', b'K\x01s', b'h\x01K\x01s' * 2000, b's']
    ),
    'a list of tuples in a set': b'}' + TEXT + b']q\x20(' + TUPLES + b'e0c__builtin__\nset\n(h\x20tRs',
    'bytes that double': b'}' + TEXT + HEX + b's',
    'a long stack': b'N' * 20_000 + b'(t0' * 20_000,
    'depth': b']' * 3000 + b'a' * 2999,
}


@pytest.mark.parametrize('steps', ENDLESS.values(), ids=ENDLESS)
def test_pickles_that_take_without_end(tmp_path: Path, steps: bytes) -> None:
    refusal(with_pickle(tmp_path / 'net.pth', program(steps)))


def test_expanded_tensors_of_a_sensible_size_are_read(tmp_path: Path) -> None:
    content = {'a': torch.arange(4.0).expand(100, 4), 'tied': WEIGHTS['conv1.weight'], **WEIGHTS}
    torch.save(content, tmp_path / 'net.pth')
    found = read_checkpoint(tmp_path / 'net.pth')
    assert torch.equal(found['a'], content['a'])
    assert found['tied'].data_ptr() == found['conv1.weight'].data_ptr()


def commands(tmp_path: Path, **info: object) -> dict[str, object]:
    """Return the runtime_info that is left of a checkpoint of a run in ``tmp_path / 'own'``."""
    hub = {'log_scalars': {}, 'runtime_info': {'epoch': 2, **info}, 'resumed_keys': dict.fromkeys(info, True)}
    content = {'state_dict': WEIGHTS, 'meta': {'config': 'x = 1', 'epoch': 2}, 'message_hub': hub}
    torch.save(content, tmp_path / 'own' / 'epoch_2.pth')
    found = read_checkpoint(tmp_path / 'own' / 'epoch_2.pth', work_dir=tmp_path / 'own')
    assert found['meta'] == {'epoch': 2}
    left = found['message_hub']['runtime_info']
    assert left.pop('epoch') == 2
    assert found['message_hub']['resumed_keys'] == dict.fromkeys(left, True)
    none = read_checkpoint(tmp_path / 'own' / 'epoch_2.pth')['message_hub']['runtime_info']
    assert not [key for key in none if key.startswith('best_ckpt')]  # without a work dir nothing is one's own
    return left


def test_paths_of_other_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('own', 'other', 'elsewhere'):
        (tmp_path / name).mkdir()
    (tmp_path / 'other' / 'best_mIoU_iter_9.pth').touch()
    (tmp_path / 'own' / 'best_link.pth').symlink_to(tmp_path / 'other' / 'best_mIoU_iter_9.pth')
    (tmp_path / 'own' / 'sub').symlink_to(tmp_path / 'other')
    monkeypatch.chdir(tmp_path / 'elsewhere')
    below = ('other/best_mIoU_iter_9.pth', 'own/../other/best_mIoU_iter_9.pth', 'own/sub/best_mIoU_iter_9.pth')
    below += ('own/best_link.pth', 'own', 'own/.', 'own/epoch_1.pth')
    foreign = [f'{tmp_path}/{name}' for name in below]
    foreign += ['../other/best_mIoU_iter_9.pth', 'best_mIoU_iter_9.pth', '.', '', 'a\0b', '\ud800/best_a.pth', '~', 3]
    foreign += ['x' * 10**5, [f'{tmp_path}/other/best_mIoU_iter_9.pth'], os.fsencode(f'{tmp_path}/other')]
    for value in foreign:
        assert commands(tmp_path, best_ckpt=value, **{'best_ckpt_coco/bbox_mAP': value, 'last_ckpt': value}) == {}
    assert commands(tmp_path, keep_ckpt_ids=['../other/x'], note='plain') == {'note': 'plain'}


def test_own_best_checkpoint_stays_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'own').mkdir()
    best = tmp_path / 'own' / 'best_mIoU_iter_9.pth'
    monkeypatch.chdir(tmp_path)
    facts = {'best_score': 0.5, 'keep_ckpt_ids': [1, 2]}
    assert commands(tmp_path, best_ckpt=str(best), **facts) == facts
    best.touch()
    for value in (str(best), f'own/{best.name}', f'/moved/{best.name}'):
        assert commands(tmp_path, best_ckpt=value, **facts) == {'best_ckpt': str(best), **facts}
