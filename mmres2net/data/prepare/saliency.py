"""Data sets of salient objects: MSRA-B, on which DSS is trained, and the four of the paper's table 9.

Only ECSSD and MSRA-B have official URLs whose files have a known size and checksum (SHA-256, as one public project that
fetched them publishes it). The others have to be fetched by hand. All are laid out alike, whatever the folders of their
archives are called: ``saliency/NAME/images`` and ``saliency/NAME/masks``.
"""

from __future__ import annotations

from mmres2net.data.prepare.by_hand import ByHand, Part, from_lists, from_parts, sort_by_suffix
from mmres2net.data.prepare.checks import Check, Files, Listed, Masks
from mmres2net.data.prepare.rows import Archive, DataSet

_ECSSD = 'https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency'
_MSRA_B, _MSRA_B_FILES = 'saliency/MSRA-B', ('saliency/MSRA-B/images/{}.jpg', 'saliency/MSRA-B/masks/{}.png')
_OMRON = 'http://saliencydetection.net/dut-omron'
# As other projects publish them.
_SALOBJ_MD5, _OMRON_MD5 = 'e48b4e5deac08bddcaec55ce56e4d420', 'a8951db9297afacf78bc0e5079103cf1'


def _complete(name: str, count: int, suffix: str = '.jpg') -> tuple[Check, ...]:
    """Return checks of a folder of images and a folder of as many masks, one for each image."""
    images, masks = f'saliency/{name}/images', f'saliency/{name}/masks'
    return Files(images, suffix, count), Files(masks, '.png', count), Masks(images, suffix, masks, '.png')


def _urls(*names: str) -> tuple[str, ...]:
    """Return the URL in both protocols, because the certificates of such servers expire."""
    return *(f'https://{name}' for name in names), *(f'http://{name}' for name in names)


def _ecssd(name: str, folder: str, place: str, suffix: str, size: int, sha256: str) -> Archive:
    return Archive(
        name=name,
        urls=_urls(f'www.cse.cuhk.edu.hk/leojia/projects/hsaliency/data/ECSSD/{name}'),
        size=size,
        md5='',
        places={f'{folder}/': f'saliency/ECSSD/{place}/'},
        unpacked=size,
        checks=(Files(f'saliency/ECSSD/{place}', suffix, 1_000),),
        sha256=sha256,
    )


ECSSD_IMAGES = _ecssd(
    'images.zip', 'images', 'images', '.jpg', 67_766_979,
    '7d5dce1a21c6d82e2f9617c00ad7eae2de5ded9320e8c59a01b4c731d210ea47',
)  # fmt: skip
ECSSD_MASKS = _ecssd(
    'ground_truth_mask.zip', 'ground_truth_mask', 'masks', '.png', 1_571_109,
    'dc0a9f11f2adee2737d95b28f9567a0a5de33f78743447c097ceb4d42f281a31',
)  # fmt: skip
MSRA_B = Archive(
    name='MSRA-B.zip',
    urls=_urls('mftp.mmcheng.net/Data/MSRA-B.zip'),
    size=114_133_760,
    md5='',
    places={'MSRA-B/': f'{_MSRA_B}/'},
    unpacked=114_133_760,
    checks=_complete('MSRA-B', 5_000),
    sha256='1c82ee25d81284922c1d3bd7be971d1010999bb7a85b6fefc5d3246ee07937d8',
)

SALIENCY: dict[str, DataSet] = {
    'msra-b': DataSet(
        title='MSRA-B: salient objects, 2,500 training, 500 validation and 2,000 test images',
        home='https://mmcheng.net/msra10k/',
        archives=(MSRA_B,),
        checks=(
            *MSRA_B.checks,
            Listed(f'{_MSRA_B}/train.txt', 2_500, _MSRA_B_FILES),
            Listed(f'{_MSRA_B}/val.txt', 500, _MSRA_B_FILES),
            Listed(f'{_MSRA_B}/test.txt', 2_000, _MSRA_B_FILES),
        ),
        data='saliency',
        config='dss_r2n50.py',
        finish=sort_by_suffix(_MSRA_B),
        by_hand=ByHand(
            (
                'fetch the lists of training, validation and test images, which are not in the archive: '
                'https://people.cs.umass.edu/~hzjiang/drfi/, at the bottom',
                'name them trainImgSet.mat, valImgSet.mat and testImgSet.mat, or train.txt, val.txt and test.txt with '
                'one image per line',
            ),
            from_lists(_MSRA_B),
        ),
    ),
    'ecssd': DataSet(
        title='ECSSD: salient objects, 1,000 test images',
        home=f'{_ECSSD}/dataset.html',
        archives=(ECSSD_IMAGES, ECSSD_MASKS),
        checks=_complete('ECSSD', 1_000),
        data='saliency',
    ),
    'pascal-s': DataSet(
        title='PASCAL-S: salient objects, 850 test images, with masks in grey levels',
        home='http://cbs.ic.gatech.edu/salobj/',
        archives=(),
        checks=_complete('PASCAL-S', 850),
        data='saliency',
        by_hand=ByHand(
            (
                f'fetch salObj.zip from http://cbs.ic.gatech.edu/salobj/ (Dataset & Code; MD5 {_SALOBJ_MD5}), packed '
                'or unpacked',
            ),
            from_parts(
                Part('salObj.zip', 'datasets/imgs/pascal', '.jpg', 'saliency/PASCAL-S/images', _SALOBJ_MD5),
                Part('salObj.zip', 'datasets/masks/pascal', '.png', 'saliency/PASCAL-S/masks', _SALOBJ_MD5),
            ),
        ),
    ),
    'hku-is': DataSet(
        title='HKU-IS: salient objects, 4,447 images',
        home='https://i.cs.hku.hk/~gbli/deep_saliency.html',
        archives=(),
        checks=_complete('HKU-IS', 4_447, '.png'),
        data='saliency',
        by_hand=ByHand(
            (
                'fetch HKU-IS.rar, which https://i.cs.hku.hk/~gbli/deep_saliency.html links to',
                'unpack it (unrar x HKU-IS.rar): it has the folders HKU-IS/imgs and HKU-IS/gt',
            ),
            from_parts(
                Part('', 'HKU-IS/imgs', '.png', 'saliency/HKU-IS/images'),
                Part('', 'HKU-IS/gt', '.png', 'saliency/HKU-IS/masks'),
            ),
        ),
    ),
    'dut-omron': DataSet(
        title='DUT-OMRON: salient objects, 5,168 images',
        home=f'{_OMRON}/',
        archives=(),
        checks=_complete('DUT-OMRON', 5_168),
        data='saliency',
        by_hand=ByHand(
            (
                f'fetch {_OMRON}/download/DUT-OMRON-image.zip (MD5 {_OMRON_MD5}), packed or unpacked',
                f'fetch {_OMRON}/download/DUT-OMRON-gt-pixelwise.zip.zip, packed or unpacked',
            ),
            from_parts(
                Part('DUT-OMRON-image.zip', 'DUT-OMRON-image', '.jpg', 'saliency/DUT-OMRON/images', _OMRON_MD5),
                Part('DUT-OMRON-gt-pixelwise.zip.zip', 'pixelwiseGT-new-PNG', '.png', 'saliency/DUT-OMRON/masks'),
            ),
        ),
    ),
}
