"""DSS R50 on MSRA-B: the baseline of dss_r2n50.py.

Family: paper (the training and test sets are the paper's; it states no setting but "other configurations unchanged" of
DSS, whose ResNet form and solver are public in part: the _base_ files tell what is known and what is not).
Target: F / MAE of ECSSD .910/.065, PASCAL-S .823/.105, HKU-IS .894/.058, DUT-OMRON .748/.092, published by the paper
(table 9); it does not say which F. Compare maxF.
Schedule: 12,000 steps x 10 images = 48.0 epochs of 2,500 images.
Status: not trained at full size here.
Run: tools/train.py configs/dss_r50.py
"""

_base_ = [
    '_base_/models/dss_r50.py',
    '_base_/datasets/msrab_saliency.py',
    '_base_/schedules/dss.py',
    '_base_/segmentation_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=1_500, save_best='maxF', rule='greater'))
# Every test writes the maps it measures: WORK_DIR/saliency/DATASET/NAME.png.
custom_hooks = [dict(type='mmres2net.PicturesHook', count=8, score_thr=None), dict(type='mmres2net.SaliencyMapsHook')]
