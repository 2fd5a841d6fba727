"""What was typed to make the golden folders: words of that version, which later versions must go on to understand.

Do not bring these words up to date where a key is renamed: that old commands and old folders work is what they test.
"""

from __future__ import annotations

COMMIT = "c2f6fe20345c0d91c7772f453c9ebf7c8f7b8a24"

_RUN = ("device=cpu", "trainer.threads=1", "trainer.progress=false")
_CNN = ("model.filters=2", "model.blocks=2", "model.dense_width=4")
_TINY = ("model.blocks=1", "model.dense_width=0", "model.global_pool=true", "model.batch_norm=false")
_SHAPES = ("data=synthetic", "data.image_size=16", "data.classes=3")

# Words after `da6401 train`. A run's folder is outputs/runs/NAME, a sweep's is outputs/sweeps/NAME.
RUNS: dict[str, tuple[str, ...]] = {
    "part_a_digits": (
        *_RUN, "experiment=part_a", "model.filters=[6,12]", "model.dropout=0.0", "augmentation.crop_scale=0.9",
        "data=digits", "data.image_size=16", "data.val_fraction=0.1", "trainer.epochs=4", "trainer.batch_size=32",
        "optimizer.lr=0.03", "seed=3",
    ),
    "part_b_lite0_head": (
        *_RUN, "experiment=part_b", "model=efficientnet_lite0", "model.freeze_depth=9", "model.feature_cache=on",
        "augmentation=none", "data=folder", "data.root=images", "data.image_size=32", "data.on_bad=skip",
        "trainer.epochs=3", "trainer.batch_size=8", "optimizer.lr=0.01",
    ),
    # All that has a state of its own: dropout, augmentation, mixup, CutMix, the average of the weights, batch norm.
    "interrupted": (
        *_RUN, *_CNN, *_SHAPES, "data.images_per_class=40", "model.dropout=0.3", "model.block_dropout=0.1",
        "augmentation=strong", "augmentation.trivial=true", "augmentation.mixup=0.2", "augmentation.cutmix=0.5",
        "trainer.ema_decay=0.9", "trainer.label_smoothing=0.1", "trainer.clip_norm=1.0", "trainer.epochs=8",
        "trainer.batch_size=8", "trainer.checkpoint_minutes=0.0001", "resume=extend",
    ),
}  # fmt: skip
SWEEPS: dict[str, tuple[str, ...]] = {
    "sweep_pruned_confirmed": (
        *_RUN, *_TINY, "model.filters=4", *_SHAPES, "data.images_per_class=40", "trainer.epochs=4",
        "trainer.batch_size=8",
        "optimizer.lr=tag(log,interval(1e-5,1e-1))", "model.dropout=choice(0.0,0.2)",
        "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.startup_trials=2",
        "hydra.sweeper.n_trials=5", "sweep.keep_checkpoints=1", "sweep.confirm_top=2", "sweep.confirm_seeds=2",
        "sweep.curve=model.dropout", "seed=5",
    ),
    "sweep_killed": (
        *_RUN, *_TINY, "model.filters=4", *_SHAPES, "data.images_per_class=40", "trainer.epochs=4",
        "trainer.batch_size=8", "trainer.checkpoint_minutes=0.0001", "optimizer.lr=tag(log,interval(1e-3,1e-1))",
        "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=1", "warm_start=sweep_pruned_confirmed",
    ),
    "sweep_two_objectives": (
        *_RUN, *_TINY, *_SHAPES, "data.images_per_class=40", "trainer.epochs=4",
        "trainer.batch_size=8", "trainer.checkpoint_minutes=0.0001", "model.filters=choice(2,3,4)",
        "optimizer.lr=tag(log,interval(1e-3,1e-1))", "hydra.sweeper.n_trials=4",
        "hydra.sweeper.direction=[maximize,minimize]", 'sweep.objectives="val_accuracy,parameters"',
        'sweep.gpus="0,1"',
    ),
}  # fmt: skip
STOPPED = {"interrupted": "SIGTERM", "sweep_killed": "SIGKILL", "sweep_two_objectives": "SIGTERM"}  # in mid-run
STOPPED_TRIAL = 2  # of those sweeps: the trial that ran then, 0 and 1 being complete

ASKED = ("part_a_digits", "part_b_lite0_head")  # the runs that predict and evaluate are asked of, for the answers
EVALUATED = ("part_a_digits",)  # those whose folder is kept as it was after that
PICTURES = ("images/test/blue/0.png", "images/test/green/1.png", "images/test/red/0.png")  # what predict is asked
