"""What the runs of every task share: logging, checkpoints, processes."""

custom_imports = dict(
    imports=['mmres2net.models', 'mmres2net.engine.hooks', 'mmres2net.evaluation'], allow_failed_imports=False
)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    finite_loss=dict(type='mmres2net.FiniteLossHook', patience=10),  # steps of NaN in a row that do not stop a run
    results=dict(type='mmres2net.ResultsHook', images=8),  # results.csv, plots, the best and worst images
)
custom_hooks = []
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl', timeout=1800),  # seconds that processes wait for each other
)
vis_backends = [
    dict(type='LocalVisBackend'),
    # dict(type='TensorboardVisBackend'),  # pip install tensorboard
]
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
