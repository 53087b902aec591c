"""A detector of generated images. It chooses among the samples of a GAN (`dcgan.best_of_neighbours`).

It also measures samples: how many pass as real, and how easily they are detected.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from utils.data.image_files import to_float
from utils.evaluation import require
from utils.models.classifier import Detector
from utils.training import devices


def train_detector(real: np.ndarray, fake: np.ndarray, steps: int = 600, seed: int = 0) -> Detector:
    """Train a `Detector` from random weights on batches of 64 real and 64 generated images, flipped and shifted.

    Args:
        real, fake: uint8 (N, 1, H, W) and (M, 1, H, W).
        steps: the number of training steps, at least 1.
        seed: the seed of the weights and of the batches.

    Returns:
        The detector in eval mode, on the accelerator's device. In float16, the loss is scaled as in `loop.fit`.

    Raises:
        ValueError: a set is empty, or `steps` is less than 1.
    """
    require(1, "a detector", real_images=len(real), generated_images=len(fake), training_steps=steps)
    with devices.seeded(seed):
        accelerator = devices.accelerator()
        device = accelerator.device
        model = Detector().to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        optimizer = accelerator.prepare(optimizer)
        sides = [to_float(real).to(device), to_float(fake).to(device)]
        target = torch.cat([torch.full((64,), 0.97, device=device), torch.full((64,), 0.03, device=device)])
        for _ in range(steps):
            batch = torch.cat([side[torch.randint(len(side), (64,), device=device)] for side in sides])
            if torch.rand(()) < 0.5:
                batch = batch.flip(-1)
            top, left = torch.randint(0, 5, (2,)).tolist()
            height, width = batch.shape[2:]
            batch = F.pad(batch, (2, 2, 2, 2), mode="replicate")[:, :, top : top + height, left : left + width]
            with accelerator.autocast():
                logits = model(batch.contiguous(memory_format=torch.channels_last))
            loss = F.binary_cross_entropy_with_logits(logits.float(), target)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
    return model.eval()


def pass_rate(detector: Detector, images: np.ndarray) -> float:
    """The share, in [0, 1], of images uint8 (N, 1, H, W) that the detector classifies as real.

    Raises:
        ValueError: there are no images.
    """
    require(1, "a pass rate", images=len(images))
    device = detector.laplacian.device
    with torch.no_grad():
        return float(torch.cat([detector(b.to(device)) > 0 for b in to_float(images).split(500)]).float().mean())


def learned_two_sample_accuracy(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    steps: int,
    seed: int = 0,
) -> float:
    """Classifier two-sample test with a network (Lopez-Paz & Oquab 2017).

    A detector is trained on real images and on samples of one model. It is then tested on other real images and on
    other samples of the same model.

    Args:
        train: real images and samples for training, uint8 (N, 1, H, W) each.
        test: real images and samples for the test, uint8 (N, 1, H, W) each.
        steps, seed: as in `train_detector`.

    Returns:
        The mean of the accuracy on real images and the accuracy on samples, in [0, 1]. Guessing gives 0.5.

    Raises:
        ValueError: a set is empty, or `steps` is less than 1.
    """
    require(1, "a two-sample test", real_test_images=len(test[0]), test_samples=len(test[1]))
    detector = train_detector(*train, steps, seed)
    real, fake = (pass_rate(detector, images) for images in test)
    return (real + 1 - fake) / 2
