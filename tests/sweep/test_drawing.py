"""Figure 4 out of the folders of finished runs: which points, on which lines, from which epoch."""

import csv
import json
from pathlib import Path

import pytest

from mmres2net.engine.config import load_config
from mmres2net.errors import UserError
from mmres2net.paths import config_dir
from mmres2net.sweep.grid import Network
from mmres2net.sweep.main import CONFIG, main
from mmres2net.sweep.runs import count_parameters, find_runs, read_run

SMALL = Network(11, 2, 1, 4)
EPOCHS = 3


def fake_run(folder: Path, network: Network, accuracies: dict[int, float], epochs: int = EPOCHS) -> Path:
    """A work folder as a run of training leaves it."""
    logs = folder / '20260101_000000' / 'vis_data'
    logs.mkdir(parents=True)
    options = {key.rpartition('.')[2]: value for key, value in network.options.items()}
    base = str(config_dir() / CONFIG)
    text = f'_base_ = {base!r}\nmodel = dict(backbone={options})\ntrain_cfg = dict(max_epochs={epochs})\n'
    (folder / 'resnext29_6c24w.py').write_text(text)
    lines = [{'lr': 0.05, 'loss': 4.6, 'step': 7}]
    lines += [{'accuracy/top1': value, 'accuracy/top5': 99.0, 'step': epoch} for epoch, value in accuracies.items()]
    (logs / 'scalars.json').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Finished runs along two axes, one that is not finished, and one that differs in two dimensions."""
    root = tmp_path / 'sweep'
    runs = {
        SMALL: {1: 10.0, 2: 30.0, 3: 20.0},
        Network(11, 2, 2, 4): {3: 40.0},
        Network(11, 2, 3, 4): {2: 45.0, 3: 44.0},
        Network(20, 2, 1, 4): {3: 25.0},
        Network(11, 4, 1, 4): {1: 12.0, 2: 13.0},
        Network(20, 2, 2, 4): {3: 50.0},
    }
    for network, accuracies in runs.items():
        fake_run(root / network.name, network, accuracies)
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as stream:
        return list(csv.DictReader(stream))


def test_points_are_the_finished_runs_along_each_axis(sweep: Path, capsys) -> None:
    assert main(['draw', str(sweep)]) == 0
    rows = rows_of(sweep / 'figure4.csv')
    points = [(row['axis'], int(row[row['axis']]), float(row['top1_last']), float(row['top1_best'])) for row in rows]
    assert points == [
        ('depth', 11, 20.0, 30.0),
        ('depth', 20, 25.0, 25.0),
        ('scale', 1, 20.0, 30.0),
        ('scale', 2, 40.0, 40.0),
        ('scale', 3, 44.0, 45.0),
    ]
    assert int(rows[-1]['parameters']) == count_parameters(load_config(CONFIG, Network(11, 2, 3, 4).options))
    assert [
        {key: str(value) for key, value in row.items()} for row in json.loads((sweep / 'figure4.json').read_text())
    ] == rows
    left_out = capsys.readouterr().err.splitlines()
    assert left_out == [
        f'left out: {sweep}/depth11_4c4w1s: 2 of 3 epochs',
        f'left out: {sweep}/depth20_2c4w2s: differs from the baseline in more than one dimension',
    ]


@pytest.mark.parametrize(('flags', 'epoch'), [([], 'last epoch'), (['--best'], 'best of all epochs')])
def test_picture_has_a_line_for_each_axis(sweep: Path, tmp_path: Path, flags: list[str], epoch: str) -> None:
    file = tmp_path / 'new' / 'figure.svg'
    assert main(['draw', str(sweep), '--figure', str(file), *flags]) == 0
    text = file.read_text()
    for words in ('depth d', 'scale s', 'd=20', 's=2', 's=3', 'parameters (M)', epoch):
        assert f'<!-- {words} -->' in text or words in text, words
    assert 'cardinality c' not in text
    assert {path.name for path in file.parent.iterdir()} == {'figure.svg', 'figure.csv', 'figure.json'}


def test_runs_are_named_one_by_one_or_by_their_folder(sweep: Path) -> None:
    folders = [sweep / SMALL.name, sweep / 'depth11_2c4w2s']
    assert [run.network for run in find_runs(folders)] == [SMALL, Network(11, 2, 2, 4)]
    assert len(find_runs([sweep, *folders])) == 6


def test_resumed_run_is_read_from_all_its_logs(tmp_path: Path) -> None:
    """Epoch 2 was cut off in the first start and done again in the second."""
    folder = fake_run(tmp_path / 'run', SMALL, {1: 10.0, 2: 11.0})
    first = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    first.write_text(first.read_text() + '{"accuracy/top1": 1')
    second = folder / '20260102_000000' / 'vis_data'
    second.mkdir(parents=True)
    (second / 'scalars.json').write_text(
        ''.join(
            json.dumps({'accuracy/top1': float(value), 'step': epoch}) + '\n' for epoch, value in ((2, 21), (3, 31))
        )
    )
    run = read_run(folder)
    assert run.accuracies == {1: 10.0, 2: 21.0, 3: 31.0}
    assert (run.is_finished, run.top1(best=False)) == (True, 31.0)


def test_mistakes_are_one_error(sweep: Path, tmp_path: Path) -> None:
    def error_of(*folders: Path) -> str:
        with pytest.raises(UserError) as caught:
            main(['draw', *map(str, folders), '--figure', str(tmp_path / 'figure.png')])
        return str(caught.value)

    assert 'no run of training in there' in error_of(tmp_path / 'nowhere')
    assert 'no run of training in there' in error_of(sweep / SMALL.name / '20260101_000000')
    assert 'none of these runs is finished' in error_of(sweep / 'depth11_4c4w1s')
    assert 'differs from' in error_of(sweep / SMALL.name)
    assert 'is of the baseline depth11_2c4w1s' in error_of(sweep / 'depth20_2c4w1s', sweep / 'depth11_2c4w3s')
    again = fake_run(tmp_path / 'again', SMALL, {3: 1.0})
    assert 'trained the same network' in error_of(sweep, again)
    wider = fake_run(tmp_path / 'wider', Network(11, 2, 1, 8), {3: 1.0})
    assert 'one width, these have 4, 8' in error_of(sweep, wider)
    longer = fake_run(tmp_path / 'longer', Network(29, 2, 1, 4), {4: 1.0}, epochs=4)
    assert 'one number of epochs, these have 3, 4' in error_of(sweep, longer)
    assert not list(tmp_path.glob('figure.*'))


def test_damaged_folders_are_one_error(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / 'run', SMALL, {3: 1.0})
    log = next(folder.glob('*/vis_data/scalars.json'))
    log.write_text('{"accuracy/top1"\n' + log.read_text())
    with pytest.raises(UserError, match=r'scalars\.json, line 1, is not JSON'):
        read_run(folder)
    (folder / 'other.py').write_text('')
    with pytest.raises(UserError, match=r'one config in its folder, here are other\.py, resnext29_6c24w\.py'):
        read_run(folder)
    other = tmp_path / 'wide'
    (other / 'start' / 'vis_data').mkdir(parents=True)
    load_config('cifar100/wrn28_10').dump(other / 'wrn28_10.py')
    with pytest.raises(UserError, match=r'wide: its backbone is no Res2Net'):
        read_run(other)


def test_unknown_format_is_one_error(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'figure\.abc: .*not supported'):
        main(['draw', str(sweep), '--figure', str(tmp_path / 'figure.abc')])
