"""A folder per class: what mmpretrain would number wrongly, or pass over with a warning, is an error here."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmres2net.data.check import check_classes
from mmres2net.data.folders import classes_in, image_folder
from mmres2net.data.layout import needed_paths
from mmres2net.errors import UserError


def fill(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text('')
    return root


def config(root: Path, **options: object) -> Config:
    def part(name: str) -> dict:
        return dict(dataset=dict(type='CustomDataset', data_root=str(root), data_prefix=name, **options))

    head = dict(num_classes=2)
    return Config(
        dict(default_scope='mmpretrain', model=dict(head=head), train_dataloader=part('a'), val_dataloader=part('b'))
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path, 'a/cat/1.JPEG', 'a/dog/deep/2.png', 'b/cat/3.jpg', 'b/dog/4.jpg')


def test_sound_folders_pass_and_are_numbered_as_mmpretrain_does(root: Path) -> None:
    cfg = config(root)
    check_classes(cfg, ['train', 'val'])
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == classes_in(root / 'a', cfg.train_dataloader.dataset, None) == ('cat', 'dog')
    assert [dataset.get_data_info(i)['gt_label'] for i in range(2)] == [0, 1]


@pytest.mark.parametrize(
    ('options', 'classes', 'message'),
    [
        (dict(), ('cat',), 'has 2 folders .cat, dog., one a class, but CustomDataset has 1 classes'),
        (dict(), ('dog', 'cat'), 'labels follow the order of the folders .cat, dog., not that of metainfo.classes'),
        (dict(extensions=('.png',)), None, '1 of the 2 class folders in .* have no images: cat; images end in .png'),
    ],
)
def test_folders_that_do_not_fit(root: Path, options: dict, classes: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        classes_in(root / 'a', dict(type='CustomDataset', **options), classes)


def test_images_that_are_not_sorted_into_folders(tmp_path: Path) -> None:
    fill(tmp_path, 'val/ILSVRC2012_val_00000001.JPEG')
    with pytest.raises(UserError, match='val has no folders: its images must be sorted into one folder a class'):
        classes_in(tmp_path / 'val', dict(type='ImageNet'), ('a', 'b'))


def test_classes_of_ones_own_names_pass_in_any_order(root: Path) -> None:
    """As ImageNet's, whose names are not those of its folders."""
    assert classes_in(root / 'a', dict(type='ImageNet'), ('tench', 'goldfish')) == ('tench', 'goldfish')


def test_splits_with_other_classes(root: Path) -> None:
    (root / 'b/dog').rename(root / 'b/cow')
    with pytest.raises(UserError, match='only the first has dog; only the second has cow; name the folders alike'):
        check_classes(config(root), ['train', 'val'])


def test_head_of_another_size(root: Path) -> None:
    cfg = config(root)
    cfg.model.head.num_classes = 3
    with pytest.raises(UserError, match=r'model.head.num_classes=3, but the data set has 2 classes \(cat, dog\)'):
        check_classes(cfg, ['train'])


@pytest.mark.parametrize('topk', [5, (1, 5)])
def test_more_guesses_than_classes(root: Path, topk: object) -> None:
    cfg = config(root)
    cfg.val_evaluator = [dict(type='Accuracy', topk=topk)]
    check_classes(cfg, ['train'])
    with pytest.raises(UserError, match=r'val_evaluator.0.topk=.*, but the data set has 2 classes'):
        check_classes(cfg, ['val'])


def test_a_list_of_images_or_no_labels_need_no_folders(tmp_path: Path) -> None:
    fill(tmp_path, 'meta/val.txt')
    assert image_folder(dict(data_root=str(tmp_path), data_prefix='x', ann_file='x.txt')) is None
    assert image_folder(dict(data_root=str(tmp_path), data_prefix='x', with_label=False)) is None
    assert (
        image_folder(dict(type='ImageNet', data_root=str(tmp_path), split='val')) is None
    )  # mmpretrain takes the list
    train = dict(type='mmpretrain.ImageNet', data_root=str(tmp_path), split='train')
    assert image_folder(train) == tmp_path / 'train'


def test_the_split_of_imagenet_is_a_folder_that_must_be_there() -> None:
    assert needed_paths(dict(type='ImageNet', data_root='x', split='val')) == ['val']
    assert needed_paths(dict(type='CIFAR100', data_root='x', split='train')) == []
    assert needed_paths(dict(type='CustomDataset', data_root='x', data_prefix=dict(img_path='y'))) == ['y']
