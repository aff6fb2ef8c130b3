"""The embedded data set: what is drawn, and what happens when it is made, found, damaged or refused."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmres2net.data import shapes, shapes_layout
from mmres2net.data.shapes import CLASSES, ShapesSpec, draw_scene, make_shapes, verify_shapes
from mmres2net.data.shapes_scene import MIN_VISIBLE, Scene, _place
from mmres2net.data.shapes_texture import COLOURS, RandomBits
from tests.support.cli import run_cli

TINY = ShapesSpec(n_train=2, n_val=1, min_side=64, max_side=80, max_size=40)


# What is drawn


def test_a_scene_is_the_same_everywhere() -> None:
    # Golden: these bits must not change with numpy, Python or the platform; a new value needs a new VERSION.
    digest = hashlib.sha256()
    for split, index in (('train', 0), ('train', 12), ('train', 49), ('val', 5)):
        scene = draw_scene(ShapesSpec(), split, index)
        digest.update(scene.image.tobytes())
        for instance in scene.instances:
            digest.update(instance.mask.tobytes())
    assert digest.hexdigest() == '5d4c084e78708c009e633b01baa0229d0a00107d5e13bd768951276ef955b6f2'


def test_a_scene_does_not_depend_on_the_number_of_images() -> None:
    one, other = draw_scene(ShapesSpec(n_train=1), 'train', 0), draw_scene(ShapesSpec(n_train=9), 'train', 0)
    assert np.array_equal(one.image, other.image)


@pytest.mark.parametrize(('seed', 'split', 'index'), [(0, 'val', 0), (0, 'train', 1), (4, 'train', 0)])
def test_seed_split_and_index_each_change_the_scene(seed: int, split: str, index: int) -> None:
    one, other = draw_scene(ShapesSpec(seed=0), 'train', 0), draw_scene(ShapesSpec(seed=seed), split, index)
    assert one.image.shape != other.image.shape or not np.array_equal(one.image, other.image)


def test_instances_are_visible_and_disjoint(scenes: dict[str, Scene]) -> None:
    for scene in scenes.values():
        assert scene.image.dtype == np.uint8
        assert np.sum([instance.mask for instance in scene.instances], axis=0).max(initial=0) <= 1
        for instance in scene.instances:
            assert MIN_VISIBLE * instance.full_area <= instance.area <= instance.full_area


def test_an_object_that_the_border_would_hide_is_not_placed() -> None:
    outline = np.zeros((41, 41), dtype=bool)
    outline[:, :3] = True  # all of it far to the left of the centre, so most places cut it off
    placed = [_place(RandomBits(seed), [], 0, outline, (48, 48), False) for seed in range(40)]
    areas = [instances[0].area for instances in placed if instances is not None]
    assert min(areas) >= MIN_VISIBLE * outline.sum()
    assert _place(RandomBits(0), [], 0, outline, (48, 16), False) is None


def test_an_object_stands_out_from_what_surrounds_it(scenes: dict[str, Scene]) -> None:
    # A mask that is off by some pixels, or an object painted in the wrong place, would blur the two sides.
    gaps = []
    for scene in scenes.values():
        for instance in scene.instances:
            x1, y1, x2, y2 = instance.box
            near = np.zeros_like(instance.mask)
            near[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = True
            ring = near & ~np.any([other.mask for other in scene.instances], axis=0)
            if ring.any():
                gaps.append(np.abs(scene.image[instance.mask].mean(0) - scene.image[ring].mean(0)).max())
    assert np.percentile(gaps, 2) > 40


def test_empty_images_groups_and_numbers_of_objects(scenes: dict[str, Scene]) -> None:
    counts = {name: sum(not instance.crowd for instance in scene.instances) for name, scene in scenes.items()}
    assert [name for name, count in counts.items() if count == 0] == ['000050']
    assert max(counts.values()) == 6
    crowds = [name for name, scene in scenes.items() if any(instance.crowd for instance in scene.instances)]
    assert crowds == ['000013', '000038', '100013']


def test_image_sizes_vary_within_the_spec(scenes: dict[str, Scene]) -> None:
    sizes = {scene.image.shape[:2] for scene in scenes.values()}
    assert {side for size in sizes for side in size} == {160, 176, 192}
    assert len({height / width for height, width in sizes}) >= 5


def test_each_class_has_its_colour(scenes: dict[str, Scene]) -> None:
    colours: dict[int, list[np.ndarray]] = {label: [] for label in range(len(CLASSES))}
    for scene in scenes.values():
        for instance in scene.instances:
            colours[instance.label].append(scene.image[instance.mask].mean(0))
    for label, values in colours.items():
        mean = np.mean(values, axis=0)
        nearest = np.abs(np.array(COLOURS) - mean).max(1).argmin()
        assert nearest == label
        assert np.std(values, axis=0).min() > 5  # grey levels; loosely kept


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'n_train': 0}, r'n_train=0 is out of range; choose 1 to 99999'),
        ({'seed': -1}, r'seed=-1 is out of range'),
        ({'jpeg_quality': 101}, r'jpeg_quality=101 is out of range; choose 1 to 100'),
        ({'min_size': 150}, r'min_size=150 exceeds max_size=144'),
        ({'min_side': 200}, r'min_side=200 exceeds max_side=192'),
        ({'min_side': 100}, r'min_side=100 is not a multiple of 16'),
        ({'min_side': 64, 'min_size': 60}, r'min_size=60 does not fit .* choose at most 57'),
    ],
)
def test_bad_spec_values(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShapesSpec(**values)


@pytest.mark.parametrize('value', [1.0, True, '5', None])
def test_a_spec_takes_ints_only(value: object) -> None:
    with pytest.raises(TypeError, match=r'n_val=.* give an int'):
        ShapesSpec(n_val=value)  # type: ignore[arg-type]


def test_bad_scene_keys() -> None:
    with pytest.raises(ValueError, match="unknown split 'test'; choose from train, val"):
        draw_scene(ShapesSpec(), 'test', 0)
    with pytest.raises(ValueError, match='index=-1 is negative'):
        draw_scene(ShapesSpec(), 'train', -1)


# Making, finding and refusing a set


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = make_shapes(tmp_path / 'one', spec=TINY), make_shapes(tmp_path / 'deep' / 'other', spec=TINY)
    assert _snapshot(one) == _snapshot(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['deep', 'one']


def test_images_are_stored_once(root: Path) -> None:
    paths = [root / 'train2017', *(root / 'VOCdevkit' / year / 'JPEGImages' for year in ('VOC2007', 'VOC2012'))]
    assert len({(path / '000001.jpg').stat().st_ino for path in [*paths, root / 'saliency/images']}) == 1


def test_without_hard_links_images_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    linked = make_shapes(tmp_path / 'linked', spec=TINY)

    def refuse(*_: object) -> None:
        raise OSError('no links here')

    monkeypatch.setattr(os, 'link', refuse)
    assert _snapshot(make_shapes(tmp_path / 'copied', spec=TINY)) == _snapshot(linked)


def test_a_second_call_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_shapes(tmp_path / 'set', spec=TINY)
    times = {path: path.stat().st_mtime_ns for path in made.rglob('*')}
    monkeypatch.setattr(shapes, 'draw_scene', None)  # drawing again would fail
    assert make_shapes(made, spec=TINY) == made
    assert {path: path.stat().st_mtime_ns for path in made.rglob('*')} == times


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / 'set').mkdir()
    assert verify_shapes(make_shapes(tmp_path / 'set', spec=TINY))['counts']['train']['images'] == 2


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shapes_layout, 'write_lists', interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_shapes(tmp_path / 'set', spec=TINY)
    assert not list(tmp_path.iterdir())
    assert make_shapes(tmp_path / 'set', spec=TINY).is_dir()


def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    code = (
        'import os, sys; from mmres2net.data import shapes, shapes_layout\n'
        'shapes_layout.write_lists = lambda *_: os._exit(9)\n'
        'shapes.make_shapes(sys.argv[1], spec=shapes.ShapesSpec(n_train=1, n_val=1))'
    )
    assert subprocess.run([sys.executable, '-c', code, str(tmp_path / 'set')], capture_output=True).returncode == 9
    assert not (tmp_path / 'set').exists()
    assert not list(tmp_path.rglob(shapes.MANIFEST))
    assert make_shapes(tmp_path / 'set', spec=TINY).is_dir()


def test_a_race_is_won_by_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lists = shapes_layout.write_lists

    def other_process_first(root: Path, spec: ShapesSpec) -> None:
        write_lists(root, spec)
        monkeypatch.setattr(shapes_layout, 'write_lists', write_lists)
        make_shapes(tmp_path / 'set', spec=TINY)

    monkeypatch.setattr(shapes_layout, 'write_lists', other_process_first)
    assert verify_shapes(make_shapes(tmp_path / 'set', spec=TINY))['spec']['n_train'] == 2
    assert [path.name for path in tmp_path.iterdir()] == ['set']


@pytest.mark.parametrize('as_file', [False, True])
def test_what_is_not_ours_is_refused_and_kept(tmp_path: Path, as_file: bool) -> None:
    target = tmp_path / 'thesis'
    kept = target if as_file else target / 'chapter.txt'
    kept.parent.mkdir(exist_ok=True)
    kept.write_text('years of work')
    with pytest.raises(FileExistsError, match=r'thesis exists'):
        make_shapes(target, spec=TINY)
    assert kept.read_text() == 'years of work'


def test_a_set_of_another_spec_is_refused_and_kept(root: Path) -> None:
    before = (root / shapes.MANIFEST).read_bytes()
    with pytest.raises(FileExistsError, match=r'n_train=60 .*61'):
        make_shapes(root, spec=ShapesSpec(n_train=61, n_val=14, seed=4))
    assert (root / shapes.MANIFEST).read_bytes() == before


def _lose(path: Path) -> None:
    path.unlink()


def _change(path: Path) -> None:
    data = path.read_bytes()  # a new file, because the old one has hard links
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _add(path: Path) -> None:
    (path.parent / f'extra{path.suffix}').write_bytes(path.read_bytes())


@pytest.mark.parametrize('damage', [_lose, _change, _add])
@pytest.mark.parametrize('name', ['val2017/100001.jpg', 'VOCdevkit/VOC2012/SegmentationClass/000002.png'])
def test_damage_is_found_and_named(tmp_path: Path, damage: Callable[[Path], None], name: str) -> None:
    made = make_shapes(tmp_path / 'set', spec=TINY)
    damage(made / name)
    folder = name.rpartition('/')[0]
    with pytest.raises(ValueError, match=folder):
        verify_shapes(made)
    with pytest.raises(ValueError, match=folder):
        make_shapes(made, spec=TINY)


def test_verify_without_a_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'shapes.json is missing'):
        verify_shapes(tmp_path)


def test_a_set_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_shapes(tmp_path / 'set', spec=TINY)
    monkeypatch.setattr(shapes, 'VERSION', 2)
    with pytest.raises(ValueError, match='version 2'):
        make_shapes(made, spec=TINY)


# Command line


def test_the_command_makes_a_set(tmp_path: Path) -> None:
    done = run_cli('demo-data', tmp_path / 'set', '--train', '2', '--val', '1', '--seed', '5')
    assert done.status == 0, done.err
    manifest = verify_shapes(tmp_path / 'set')
    assert {key: manifest['spec'][key] for key in ('n_train', 'n_val', 'seed')} == {'n_train': 2, 'n_val': 1, 'seed': 5}
    assert shapes.summary(manifest) in done.out


@pytest.mark.parametrize('flags', [['--train', '0'], ['--val', '-5'], ['--seed', '-1']])
def test_numbers_out_of_range_are_one_error(tmp_path: Path, flags: list[str]) -> None:
    done = run_cli('demo-data', tmp_path / 'set', *flags)
    assert (done.status, done.err.count('error: '), list(tmp_path.iterdir())) == (2, 1, [])
    assert flags[1] in done.err


def test_a_folder_with_other_content_is_one_error(tmp_path: Path) -> None:
    (tmp_path / 'thesis.txt').write_text('years of work')
    for root in (tmp_path, tmp_path / 'thesis.txt'):
        done = run_cli('demo-data', root, '--train', '1', '--val', '1')
        assert (done.status, str(root) in done.err) == (2, True)


@pytest.mark.parametrize('text', ['', '{', '[]', '"shapes"', '{"name": "shapes", "version": 1}', '[' * 9999, '\x00'])
def test_a_damaged_manifest_is_one_error(tmp_path: Path, text: str) -> None:
    made = make_shapes(tmp_path / 'set', spec=TINY)
    (made / shapes.MANIFEST).write_text(text)
    done = run_cli('demo-data', made, '--train', '2', '--val', '1')
    assert (done.status, shapes.MANIFEST in done.err) == (2, True)


def test_temporary_folders_of_killed_runs_are_removed(tmp_path: Path) -> None:
    for name, age in (('old', 2 * shapes.STALE), ('new', 10)):
        draft = tmp_path / f'.set.{name}.partial'
        draft.mkdir()
        os.utime(draft, (time.time() - age,) * 2)
    make_shapes(tmp_path / 'set', spec=TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.set.new.partial', 'set']


def test_the_data_set_needs_neither_torch_nor_a_host() -> None:
    code = (
        'import sys, mmres2net.data.shapes\n'
        "print(*sorted({'torch', 'mmengine', 'mmcv', 'mmdet', 'cv2', 'pycocotools'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout == '\n'
