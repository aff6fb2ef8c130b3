"""A sweep: its networks, what is started, skipped and resumed, what a failing run leaves of the others, its plot."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config, DictAction

from mmres2net.engine.config import load_config
from mmres2net.errors import UserError
from mmres2net.flags import SWEEP_CONFIG, SWEEP_VALUES, parse
from mmres2net.paths import config_dir
from mmres2net.sweep.main import main
from mmres2net.sweep.runs import AXES, Network, find_runs, network_of, networks_of

TINY = ['--depth', '11', '--cardinality', '1', '--scale', '1', '2', '--axes', 'scale', '--width', '2', '--seeds', '0']
NAMES = ['depth11_1c2w1s_seed0', 'depth11_1c2w2s_seed0']
LOADERS = ['num_workers=0', 'persistent_workers=False']
QUICK = [
    '--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=4', 'model.backbone.strides=[4,2,2]',
    *(f'{part}_dataloader.{option}' for part in ('train', 'val') for option in LOADERS),
]  # fmt: skip
SMALL = Network(11, 2, 1, 4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / 'cifar-100-binary'
    root.mkdir()
    records = np.random.default_rng(0).integers(0, 256, (8, 3074), np.uint8)
    records[:, :2] = np.arange(8)[:, None]
    for name in ('train', 'test'):
        records.tofile(root / f'{name}.bin')
    return tmp_path


def write_log(folder: Path, accuracies: dict[int, float], start: str = '20260101_000000') -> Path:
    path = folder / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    lines = [{'lr': 0.05, 'loss': 4.6, 'step': 7}]
    lines += [{'accuracy/top1': value, 'accuracy/top5': 99.0, 'step': epoch} for epoch, value in accuracies.items()]
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return path


def write_run(
    root: Path, network: Network, accuracies: dict[int, float], seed: int = 0, epochs: int = 3, base: str = SWEEP_CONFIG
) -> Path:
    folder = root / f'{network.name}_seed{seed}'
    write_log(folder, accuracies)
    options = '\n'.join(f'{option.replace("model.backbone.", "")},' for option in network.options)
    text = f'_base_ = {str(config_dir() / base)!r}\nmodel = dict(backbone=dict({options}))\n'
    text += f'train_cfg = dict(max_epochs={epochs})\nrandomness = dict(seed={seed})\n'
    (folder / 'config.py').write_text(text)
    return folder


def run_flags(out: Path, data: Path) -> list[str]:
    return ['run', '--out', str(out), '--data', str(data), *TINY]


def test_what_is_not_finished_is_trained_and_all_is_drawn(tmp_path: Path, data: Path) -> None:
    """Processes of training on eight images: one that fails, one that ends; and the figure with an earlier run."""
    out = tmp_path / 'sweep'
    write_run(out, Network(11, 1, 1, 2), {1: 5.0}, epochs=1)
    (out / NAMES[1]).touch()  # so that no work dir can be there
    assert main([*run_flags(out, data), *QUICK]) == 1
    (out / NAMES[1]).unlink()
    (out / NAMES[1]).mkdir()  # as of a run that was stopped before its first checkpoint
    assert main([*run_flags(out, data), *QUICK]) == 0
    runs = find_runs([out])
    assert [(run.folder.name, run.state, run.seed) for run in runs] == [(name, 'finished', 0) for name in NAMES]
    assert (runs[0].accuracies(), runs[1].network) == ({1: 5.0}, Network(11, 1, 2, 2))
    assert 0 <= runs[1].accuracies()[1] <= 100
    assert main([*run_flags(out, data), *QUICK]) == 0
    assert len(list(out.glob('*/*/vis_data'))) == 2, 'none is trained again'
    with pytest.raises(UserError, match='other settings'):
        main([*run_flags(out, data), *QUICK, 'optim_wrapper.optimizer.lr=0.2'])
    assert main(['draw', str(out)]) == 0
    assert (out / 'figure4.png').read_bytes()[:4] == b'\x89PNG'


MISTAKES = {
    'nowhere': '--data nowhere', 'resnext29_99': '--config cifar100/resnext29_99',
    'cifar|base_width': '--config cifar100/wrn28_10', 'backbone.scales=4': '--cfg-options model.backbone.scales=4',
    'randomness.seed=4': '--cfg-options randomness.seed=4', '20': '--cfg-options model.head.num_classes=20',
    '--depth 12': '--depth 12 30', '--depth 2': '--depth 2 11', '--scale 0': '--scale 0 1', '--scale 2': '--scale 2 2',
    '--width 0': '--width 0',
}  # fmt: skip


def test_mistakes_are_found_before_anything_starts(tmp_path, data, capsys) -> None:
    out = tmp_path / 'sweep'
    for named, flags in MISTAKES.items():
        with pytest.raises(UserError, match=named):
            main([*run_flags(out, data), *flags.split()])
    args = parse('sweep', ['run'])  # the defaults are the paper's baseline
    assert (min(args.depth), min(args.cardinality), min(args.scale), args.width) == (29, 6, 1, 24)
    capsys.readouterr()
    assert main([*run_flags(out, data), '--dry-run']) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == NAMES
    assert not out.exists()


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Runs along two axes with several seeds, one that is not finished, and one that differs in two dimensions."""
    root = tmp_path / 'sweep'
    write_run(root, SMALL, {1: 10.0, 2: 30.0, 3: 20.0})
    write_run(root, SMALL, {3: 24.0}, seed=1)
    write_run(root, Network(11, 2, 2, 4), {3: 40.0})
    write_run(root, Network(20, 2, 1, 4), {3: 25.0})
    write_run(root, Network(11, 4, 1, 4), {1: 12.0, 2: 13.0})
    write_run(root, Network(20, 2, 2, 4), {3: 50.0})
    return root


def test_points_are_means_over_seeds(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['draw', str(finished)]) == 0
    rows = json.loads((finished / 'figure4.json').read_text())
    points = [(row['axis'], row[row['axis']], row['top1'], row['std'], row['seeds']) for row in rows]
    std = pytest.approx(8**0.5)  # of 20 and 24
    assert points == [
        ('depth', 11, 22.0, std, 2), ('depth', 20, 25.0, None, 1),
        ('scale', 1, 22.0, std, 2), ('scale', 2, 40.0, None, 1),
    ]  # fmt: skip
    left_out = capsys.readouterr().err
    assert '2 of 3 epochs' in left_out
    assert Network(20, 2, 2, 4).name in left_out
    folder = write_run(finished / 'resumed', SMALL, {1: 10.0, 2: 30.0})  # is read from all its logs
    later = write_log(folder, {2: 31.0, 3: 32.0}, '20260102_000000')
    later.write_text(later.read_text() + '{"accuracy/top1": 99')
    assert find_runs([folder])[0].accuracies() == {1: 10.0, 2: 31.0, 3: 32.0}


def test_networks_of_equal_complexity_are_drawn_by_their_scale(tmp_path: Path) -> None:
    values = {(1, 22): (70.0, 72.0), (4, 7): (75.0, 71.0), (6, 5): (60.0, 64.0)}
    for (scale, width), accuracies in values.items():
        for seed, value in enumerate(accuracies):
            write_run(tmp_path, Network(20, 2, scale, width), {3: value}, seed, base='cifar10/resnext20_2c22w.py')
    runs = sorted(tmp_path.iterdir())
    shutil.copytree(runs[0], runs[0] / 'compared')  # as `compare` leaves its test there
    assert main(['draw', *map(str, runs), '--figure', str(tmp_path / 'figure4.png')]) == 0
    points = [(row['scale'], row['top1']) for row in json.loads((tmp_path / 'figure4.json').read_text())]
    assert points == [(1, 71.0), (4, 73.0), (6, 62.0)]
    write_run(tmp_path, Network(20, 2, 1, 23), {3: 5.0})
    with pytest.raises(UserError, match=r'width.*22, 23'):
        main(['draw', str(tmp_path)])


def test_mistakes_are_one_error(finished: Path, tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    write_run(tmp_path / 'again', SMALL, {3: 20.0})
    write_run(tmp_path / 'longer', SMALL, {4: 20.0}, seed=7, epochs=4)
    without_baseline = [finished / name for name in ('depth20_2c4w1s_seed0', 'depth11_2c4w2s_seed0')]
    for named, flags in (
        ('empty', [tmp_path / 'empty']), ('smallest', without_baseline), ('again', [finished, tmp_path / 'again']),
        ('epochs', [finished, tmp_path / 'longer']), ('--figure', [finished, '--figure', tmp_path / 'figure.nothing']),
    ):  # fmt: skip
        with pytest.raises(UserError, match=named):
            main(['draw', *map(str, flags)])


BASELINE = Network(29, 6, 1)


def with_network(cfg: Config, network: Network) -> Config:
    pairs = [option.split('=') for option in network.options]
    cfg.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in pairs})
    return cfg


def test_each_network_differs_from_the_baseline_in_one_dimension() -> None:
    networks = networks_of(SWEEP_VALUES, AXES)
    assert networks[0] == BASELINE  # section 4.4
    assert len(networks) == len(set(networks)) == 1 + 3 * 5
    assert [BASELINE.changed(network) for network in networks[1:]] == [[axis] for axis in AXES for _ in range(5)]
    assert [network.scale for network in networks[-5:]] == [2, 3, 4, 5, 6]
    values = {'cardinality': [4, 2, 4], 'depth': [20, 11], 'scale': [3, 1]}
    assert networks_of(values, ['scale'], width=8) == [Network(11, 2, 1, 8), Network(11, 2, 3, 8)]
    assert networks_of(values, ['depth', 'cardinality'])[1:] == [Network(20, 2, 1), Network(11, 4, 1)]


def test_config_has_the_network_of_its_options() -> None:
    cfg = load_config(SWEEP_CONFIG)
    assert network_of(cfg) == BASELINE
    for network in (Network(11, 2, 3, 8), Network(164, 6, 1)):
        assert network_of(with_network(cfg, network)) == network
    assert network_of(load_config('cifar100/res2next29_6c24w4s.py')) == Network(29, 6, 4, 24)  # of table 4
    for name in ('cifar100/se_resnext29_8c64w', 'cifar100/wrn28_10', 'faster_rcnn_r50'):
        with pytest.raises(UserError, match='cifar'):
            network_of(load_config(name))
