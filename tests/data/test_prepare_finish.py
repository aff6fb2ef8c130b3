"""SBD's masks and the trainaug list, against masks and lists that others made."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mmres2net.data.prepare.finish import make_trainaug, names_in
from mmres2net.errors import UserError
from tests.support.realdata import data_root
from tests.support.voc_files import make_voc, save_mat


def test_lists_and_masks(tmp_path: Path) -> None:
    sbd = make_voc(tmp_path)
    make_trainaug(tmp_path)
    voc = tmp_path / 'VOCdevkit/VOC2012'
    assert (voc / 'ImageSets/Segmentation/aug.txt').read_text() == 'e\nf\n'
    assert (voc / 'ImageSets/Segmentation/trainaug.txt').read_text() == 'a\nb\ne\nf\n'
    assert {path.stem for path in (voc / 'SegmentationClassAug').iterdir()} == set('abcdef')
    for name in 'abcd':  # with the border of VOC, not as in SBD
        official = (voc / f'SegmentationClass/{name}.png').read_bytes()
        assert (voc / f'SegmentationClassAug/{name}.png').read_bytes() == official
    for name in 'ef':
        image = Image.open(voc / f'SegmentationClassAug/{name}.png')
        assert image.mode == 'P'
        np.testing.assert_array_equal(np.asarray(image), sbd[name])
        assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    # Masks that are there stay.
    masks = voc / 'SegmentationClassAug'
    (masks / 'e.png').unlink()
    stamps = {path.name: path.stat().st_mtime_ns for path in masks.iterdir()}
    make_trainaug(tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in masks.iterdir()}
    assert set(after) == {*stamps, 'e.png'}
    assert {name: after[name] for name in stamps} == stamps


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    masks = make_voc(tmp_path)
    mat, photograph = tmp_path / 'VOCdevkit/VOCaug/dataset/cls/e.mat', tmp_path / 'VOCdevkit/VOC2012/JPEGImages/e.jpg'
    too_large = np.where(masks['e'] == 3, 21, masks['e']).astype(np.uint8)
    for spoil, message in (
        (lambda: save_mat(mat, masks['e'][:, :-1]), r'e\.mat is not .*e\.jpg: .*\(8, 11\).* 12x8 pixels'),
        (lambda: save_mat(mat, too_large), r'e\.mat .*shape \(8, 12\) with values up to 21'),
        (lambda: save_mat(mat, masks['e'][0]), r'e\.mat .*shape \(12,\)'),
        (lambda: savemat(mat, {'GTinst': 1}), r"e\.mat .*KeyError, 'GTcls'"),
        (lambda: mat.write_bytes(b'x' * 300), r'e\.mat is not the mask of'),
        (mat.unlink, r'e\.mat .*FileNotFoundError'),
        (lambda: [save_mat(mat, masks['e']), photograph.write_bytes(b'no image')], r'e\.jpg: Unidentified'),
    ):
        spoil()
        with pytest.raises(UserError, match=message):
            make_trainaug(tmp_path)
    assert not (tmp_path / 'VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt').exists()


@pytest.mark.realdata
def test_real_masks_equal_those_of_others_pixel_by_pixel(tmp_path: Path) -> None:
    mini = data_root('voc12_mini')
    source, voc = mini / 'VOCdevkit/VOC2012', tmp_path / 'VOCdevkit/VOC2012'
    (tmp_path / 'VOCdevkit').mkdir()
    (tmp_path / 'VOCdevkit/VOCaug').symlink_to(mini / 'VOCaug')
    (voc / 'ImageSets/Segmentation').mkdir(parents=True)
    for name in ('train', 'val'):
        shutil.copyfile(source / f'ImageSets/Segmentation/{name}.txt', voc / f'ImageSets/Segmentation/{name}.txt')
    for folder in ('JPEGImages', 'SegmentationClass'):
        (voc / folder).symlink_to(source / folder)
    make_trainaug(tmp_path)
    for name, count in (('aug', 150), ('trainaug', 320)):
        found, expected = (names_in(folder / f'ImageSets/Segmentation/{name}.txt') for folder in (voc, source))
        assert (found, len(found)) == (expected, count)
    made, theirs = ({path.name for path in (folder / 'SegmentationClassAug').iterdir()} for folder in (voc, source))
    assert made == theirs
    for name in sorted(made):
        ours, theirs = (Image.open(folder / 'SegmentationClassAug' / name) for folder in (voc, source))
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), err_msg=name)
        assert ours.mode == theirs.mode == 'P'
        assert ours.getpalette()[: 21 * 3] == theirs.getpalette()[: 21 * 3]
