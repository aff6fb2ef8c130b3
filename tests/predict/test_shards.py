"""Shards of a prediction: parts, a second start, and the one file of all of them."""

import json
import os
import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mmres2net.data.shapes import DEFAULT_SPEC, draw_scene
from mmres2net.errors import UserError
from mmres2net.predict import job, shards
from tests.support.cli import CliResult, run_cli

SCENES = [draw_scene(DEFAULT_SPEC, 'val', i).image for i in range(3)]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shards, 'SIZE', 2)
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(7):
        Image.fromarray(SCENES[i % 3]).save(folder / f'{i}.png')
    (folder / '4.png').write_bytes(b'no image')
    return folder


def predict(model: Path, images: Path, *flags: str | Path) -> CliResult:
    return run_cli('predict', model, images, '--score', '0.06', *flags)


@pytest.mark.parametrize(('name', 'file'), [('detector', 'predictions.json'), ('classifier', 'predictions.csv')])
def test_shards_become_the_file_of_one_run(exports: dict, images: Path, tmp_path: Path, name: str, file: str) -> None:
    model, out = exports[f'{name}.onnx'], tmp_path / 'out'
    assert predict(model, images, '--out', tmp_path / 'one').status == 1
    assert [predict(model, images, '--out', out, '--shard', f'{i}/3').status for i in range(3)] == [0, 1, 0]
    assert run_cli('merge', out).status == 1
    assert (out / file).read_text() == (tmp_path / 'one' / file).read_text()
    assert (out / 'failed.txt').read_text().startswith(f'{images / "4.png"}\t')


def test_maps_and_shares_of_a_segmentor(exports: dict, images: Path, tmp_path: Path) -> None:
    model, out = exports['segmentor.onnx'], tmp_path / 'out'
    (images / '4.png').unlink()
    assert predict(model, images, '--out', tmp_path / 'one').status == 0
    assert predict(model, images, '--out', out, '--shard', '0/1').status == 0
    assert run_cli('merge', out).status == 0
    lines = [json.loads(line) for line in (out / 'predictions.jsonl').read_text().splitlines()]
    assert [Path(line['image']).name for line in lines] == [f'{i}.png' for i in (0, 1, 2, 3, 5, 6)]
    assert all(sum(line['shares'].values()) == pytest.approx(1, abs=0.01) for line in lines)
    found = {path.name.removesuffix('.png.png'): path.read_bytes() for path in (out / 'classes').rglob('*.png')}
    assert found == {
        path.name.removesuffix('_labels.png'): path.read_bytes() for path in (tmp_path / 'one').glob('*_labels.png')
    }


def test_a_second_start_predicts_what_is_missing_alone(exports: dict, images: Path, tmp_path: Path) -> None:
    model, out = exports['detector.onnx'], tmp_path / 'out'
    for shard in ('0/2', '1/2'):
        predict(model, images, '--out', out, '--shard', shard)
    parts = sorted((out / 'parts').iterdir())
    assert len(parts) == 4  # of 4 and 3 images
    parts[1].unlink()
    done = run_cli('merge', out)
    assert done.status == 2
    assert '1 of 4 parts are missing: run --shard 0/2 again' in done.err
    assert not (out / 'predictions.json').exists()
    before = {path: path.stat().st_mtime_ns for path in parts if path.exists()}
    predict(model, images, '--out', out, '--shard', '0/2')
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert run_cli('merge', out).status == 1
    own = parts[1].read_text()
    for other in (own + own, parts[3].read_text() * 2):
        parts[1].write_text(other)
        assert run_cli('merge', out).status == 2
    parts[1].write_text(own.splitlines()[0])
    assert 'is cut' in run_cli('merge', out).err
    parts[1].write_text('{"image": 1')
    assert 'is damaged' in run_cli('merge', out).err


def test_parts_of_another_run_are_not_mixed(exports: dict, images: Path, tmp_path: Path) -> None:
    model, out = exports['detector.onnx'], tmp_path / 'out'
    assert predict(model, images, '--out', out, '--shard', '3/4').status == 0
    for change in ('--shard 3/5', '--shard 0/4 --score 0.5'):
        done = predict(model, images, '--out', out, *change.split())
        assert (done.status, 'of other settings' in done.err) == (2, True)
    Image.fromarray(SCENES[0]).save(images / '9.png')
    assert 'of other images' in predict(model, images, '--out', out, '--shard', '0/4').err


def test_workers_of_ray_predict_the_same_although_one_is_killed(
    exports: dict, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('ray.data', reason='needs the extra ray, which is not among those of the tests')
    model, out, killed, start = exports['detector.onnx'], tmp_path / 'out', tmp_path / 'killed', job._start

    def dying(args: Namespace, paths: list[Path]) -> Callable[[tuple[int, int]], int]:
        predict = start(args, paths)

        def once(shard: tuple[int, int]) -> int:
            if not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return predict(shard)

        return once

    monkeypatch.setattr(job, '_start', dying)
    assert predict(model, images, '--out', tmp_path / 'one').status == 1
    assert predict(model, images, '--out', out, '--ray', '2').status == 1
    assert (killed.exists(), run_cli('merge', out).status, len(list((out / 'parts').iterdir()))) == (True, 1, 4)
    assert (out / 'predictions.json').read_text() == (tmp_path / 'one/predictions.json').read_text()


@pytest.mark.parametrize(
    'flags', ['--shard 4/4', '--shard -1/4', '--shard 1', '--shard 0/0', '--ray 0', '--ray 2 --shard 0/2', '--json', '']
)
def test_bad_flags(exports: dict, images: Path, tmp_path: Path, flags: str) -> None:
    out = ['--out', str(tmp_path / 'out')] if flags else []
    given = flags if flags.startswith(('--shard', '--ray')) else f'--shard 0/2 {flags}'
    assert predict(exports['detector.onnx'], images, *out, *given.split()).status == 2
    assert not (tmp_path / 'out').exists()


def test_merge_wants_a_folder_of_shards(tmp_path: Path) -> None:
    (tmp_path / 'plan.json').write_text('[]')
    for folder in (tmp_path, tmp_path / 'absent'):
        with pytest.raises(UserError, match=r'is no --out [^\[]*$'):
            shards.main([str(folder)])
