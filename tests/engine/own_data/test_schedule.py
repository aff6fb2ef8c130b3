"""The schedule for data sets of other sizes, by the rules of docs/own-data.md."""

import copy

import pytest
from mmengine.config import Config

from mmres2net.engine.config import load_config
from mmres2net.engine.own_data.fit import use_own_data
from mmres2net.engine.own_data.schedule import fit_schedule
from mmres2net.engine.settings import value_at
from tests.engine.own_data.samples import own_data

YOLOX = 'mmdet::yolox_s_8xb8-300e_coco'
LR, EPOCHS, STEPS = 'optim_wrapper.optimizer.lr', 'train_cfg.max_epochs', 'train_cfg.max_iters'


def fitted(name: str, images: int, **settings: object) -> Config:
    """The config after fitting; settings of the user by path, with two underscores for a dot."""
    recipe = load_config(name)
    cfg, options = copy.deepcopy(recipe), {key.replace('__', '.'): value for key, value in settings.items()}
    cfg.merge_from_dict(options)
    fit_schedule(cfg, recipe, images, given=options)
    return cfg


@pytest.mark.parametrize(('name', 'images', 'wanted'), [
    # 12 epochs for 16 images per step at 0.02, warm-up of 500 steps; here 2 per step
    ('faster_rcnn_r2n50', 100, {EPOCHS: 20, LR: 0.0025, 'train_cfg.val_interval': 1}),
    ('faster_rcnn_r2n50', 117_266, {EPOCHS: 12, LR: 0.0025, 'train_cfg.val_interval': 1}),
    ('faster_rcnn_r2n50', 7, {EPOCHS: 250, LR: 0.0025, 'train_cfg.val_interval': 13}),
    ('faster_rcnn_r2n50', 1, {EPOCHS: 1000, LR: 0.00125, 'train_dataloader.batch_size': 1}),
    # 30,000 steps of 16 at 0.01; here 4 per step
    ('deeplabv3plus_r2n50', 40, {STEPS: 1_000, LR: 0.0025, 'default_hooks.checkpoint.interval': 50}),
    ('deeplabv3plus_r2n50', 400, {STEPS: 5_000, 'train_cfg.val_interval': 250}),
    ('deeplabv3plus_r2n50', 10_582, {STEPS: 30_000}),
    # 100 epochs of 256 images at 0.1; here 64
    ('imagenet/res2net50_26w_4s', 640, {EPOCHS: 100, LR: 0.025, 'train_cfg.val_interval': 5}),
    # 8xb2 is in the name, 16 in the setting: the setting counts
    ('mmdet::retinanet_r50_fpn_1x_coco', 100, {EPOCHS: 20, LR: 0.00125}),
    ('mmseg::pspnet_r50-d8_4xb2-40k_cityscapes-512x1024', 200, {STEPS: 5_000, LR: 0.0025}),
])  # fmt: skip
def test_length_rate_and_evaluations(name: str, images: int, wanted: dict[str, float]) -> None:
    cfg = fitted(name, images)
    assert {path: value_at(cfg, path) for path in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize(('name', 'images'), [('faster_rcnn_r2n50', 40), (YOLOX, 240)])
def test_images_that_training_leaves_out_are_no_steps(name: str, images: int) -> None:
    cfg, _ = use_own_data(load_config(name), own_data('detection', images=240, empty=200))
    assert cfg.train_cfg.max_epochs == fitted(name, images).train_cfg.max_epochs


def test_milestones_keep_their_fraction_and_the_warm_up_is_a_tenth() -> None:
    warm_up, steps = fitted('faster_rcnn_r2n50', 100).param_scheduler
    assert (warm_up.end, steps.end, steps.milestones) == (100, 20, [13, 18])
    (poly,) = fitted('deeplabv3plus_r2n50', 40).param_scheduler
    assert poly.end == 1_000
    restarts = dict(type='CosineRestartLR', periods=[10_000, 20_000], by_epoch=False)
    recipe = load_config('deeplabv3plus_r2n50', {'param_scheduler': [restarts]})
    fit_schedule(cfg := copy.deepcopy(recipe), recipe, 40)
    assert cfg.param_scheduler[0].periods == [333, 667]
    cfg = fitted(YOLOX, 4_000, train_cfg__max_epochs=40)
    warm_up, cosine, last = cfg.param_scheduler
    assert (warm_up.end, cosine.begin, cosine.end, last.begin, last.end) == (1, 1, 38, 38, 40)
    assert cfg.custom_hooks[0].num_last_epochs == 2
    assert fitted('imagenet/res2net50_26w_4s', 640, train_cfg__max_epochs=1).param_scheduler[0].milestones == [1, 1, 1]
    for images, epochs in ((12, 2), (2, 10)):  # a warm-up of one step or epoch would last for the whole run
        cfg = fitted('faster_rcnn_r2n50', images, train_cfg__max_epochs=epochs)
        assert [one.type for one in cfg.param_scheduler] == ['MultiStepLR']
    (only,) = fitted(YOLOX, 9, train_cfg__max_epochs=1).param_scheduler  # nothing is left of the others
    assert (only.begin, only.end) == (0, 1)


def test_settings_of_the_user_stay() -> None:
    cfg = fitted('faster_rcnn_r2n50', 100, train_cfg__max_epochs=3, optim_wrapper__optimizer__lr=0.5)
    assert (cfg.train_cfg.max_epochs, cfg.optim_wrapper.optimizer.lr) == (3, 0.5)
    assert cfg.param_scheduler[1].milestones == [2, 3]
    cfg = fitted('faster_rcnn_r2n50', 100, param_scheduler__1__milestones=[4], train_dataloader__batch_size=8)
    assert (cfg.param_scheduler[1].milestones, cfg.param_scheduler[0].end) == ([4], 500)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.auto_scale_lr.base_batch_size) == (0.01, 8)


def test_the_last_step_of_an_epoch_has_more_than_one_image() -> None:
    assert fitted('imagenet/res2net50_26w_4s', 129).train_dataloader.drop_last
    assert not fitted('imagenet/res2net50_26w_4s', 130).train_dataloader.get('drop_last')
    assert fitted('imagenet/res2net50_26w_4s', 33).train_dataloader.batch_size == 33
