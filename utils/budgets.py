"""How much each notebook does: one dataclass for each task, and one instance of it for each profile.

"Images seen" counts repetitions: 8 epochs of 1000 images are 8000 images seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from utils import config


@dataclass(frozen=True)
class Reading:
    """How many images are read from the folders of hands. None means all of them."""

    hands: int | None  # coursework 1: real images; a quarter is held out, and the tables need 300 of this quarter
    classifier_images: int | None  # coursework 2: number of real images, and also of test images
    labelled_images: int | None  # coursework 2: labelled images of each class


@dataclass(frozen=True)
class Hands:
    """Coursework 1: a VAE and a GAN of the hands, and trainings that they are compared with."""

    base: int  # channels of the VAE and of the GANs
    vae_images: int  # images seen by the VAE
    prior_images: int  # latents seen by the VAE's prior
    gan_images: int  # images seen by the GAN
    smaller: int  # channels of the smaller VAE that the first GAN begins with
    smaller_vae_images: int  # images seen by this VAE
    smaller_prior_images: int  # latents seen by its prior
    first_images: int  # images seen by the first GAN, whose discriminator the GAN begins with
    random_pairs_images: int  # images seen by the GAN whose discriminator compares random pairs
    cold_images: int  # images seen by the GAN that begins with random weights
    selector_images: int  # images of the GAN that its selector learns from
    selector_steps: int  # training steps of the selector
    repetitions: int  # sets of 300 samples, each with its own seed
    many_samples: int  # samples for the kinds of film, and for the detector in the two-sample test
    curve_samples: int  # samples for each point of the curves of these GANs
    seeds: int  # seeds of the VAE and of the GAN
    two_sample_steps: int  # training steps of the detector in the two-sample test
    detector_steps: int  # training steps of the detector of other people's fakes


@dataclass(frozen=True)
class HandsTuning:
    """The searches for the hyper-parameters of coursework 1's VAE and GAN."""

    vae_trials: int  # trials of the VAE and its prior
    vae_images: int  # images seen by the VAE in a trial
    prior_images: int  # latents seen by its prior in a trial
    start_images: int  # images seen by the VAE that the GAN of each trial begins with
    start_latents: int  # latents seen by its prior
    gan_trials: int  # trials of the GAN
    gan_images: int  # images seen by the GAN in a trial
    longer_gan_images: int  # images seen by it in a longer trial of the finalists
    finalists: int  # best settings of each search that are compared with trial 0 over several seeds
    seeds: int  # seeds of each finalist


@dataclass(frozen=True)
class Classifier:
    """Coursework 2: the classifier of real hands, VAE hands and GAN hands."""

    pretraining_images: int  # images seen by each network that learns to separate reals from the test folder
    images: int  # images seen by each network on the labelled images
    folds: int  # cross-validation folds, of labelled images and of the test folder
    seeds: int  # repetitions, each with its own seed; the logits are means over them


@dataclass(frozen=True)
class ClassifierTuning:
    """The search for coursework 2's hyper-parameters. All of it begins with the clean notebook's pre-training."""

    trials: int  # trials of the search
    images: int  # images seen by each network in a trial
    shorter_images: int  # the same, to see whether trials could be shorter
    compared_trials: int  # trials that are also trained for `shorter_images`
    longer_trials: int  # trials that are also trained for the clean notebook's length
    finalists: int  # trials that are trained for the clean notebook's length with other seeds
    seeds: int  # number of these seeds
    folds: int  # cross-validation folds, as many as in the clean notebook
    resnet_images: int  # images seen by each plain ResNet-18, with which the network is compared


@dataclass(frozen=True)
class Heads:
    """The MRI project: generated heads and the imputers."""

    generated_heads: int  # generated heads in the folder that question 1 asks for
    imputer_images: int  # images seen by each imputer
    imputer_batch: int  # images in a step of its training
    ablation_images: int  # images seen by each imputer of the ablation, in which parts of the recipe differ
    networks: int  # imputers whose mean is the answer


@dataclass(frozen=True)
class Garments:
    """The final assignment: five families of generative models."""

    images: int | None  # training images that are read; None: all of them
    curve_images: int  # validation images for a point of a curve
    test_images: int  # test images for the likelihood
    samples: int  # samples that are drawn from each model and evaluated
    classifier_images: int  # images seen by the classifier whose features measure the samples
    images_seen: dict[str, int]  # images seen by the model of each family
    class_gan_images: int  # images seen by the GAN that gets the classes too
    warm_vae_images: int  # images seen by the VAE whose weights the GAN of coursework 1 begins with
    warm_gan_images: int  # images seen by this GAN
    faces_images: dict[str, int]  # images seen by the model that is trained on each of the data sets of faces
    trials: int  # trials of each family's search
    trial_images: dict[str, int]  # images seen by the model of each family in a trial


READING = {
    "smoke": Reading(hands=1_300, classifier_images=500, labelled_images=100),
    "quick": Reading(hands=None, classifier_images=None, labelled_images=None),
    "full": Reading(hands=None, classifier_images=None, labelled_images=None),
}
HANDS = {
    "smoke": Hands(
        base=16, vae_images=256, prior_images=1_000, gan_images=96, smaller=8, smaller_vae_images=64,
        smaller_prior_images=256, first_images=32, random_pairs_images=32, cold_images=64,
        selector_images=64, selector_steps=3, repetitions=2, many_samples=300, curve_samples=24, seeds=1,
        two_sample_steps=3, detector_steps=3,
    ),
    "quick": Hands(
        base=32, vae_images=20_000, prior_images=60_000, gan_images=5_000, smaller=8, smaller_vae_images=64,
        smaller_prior_images=256, first_images=64, random_pairs_images=32, cold_images=64,
        selector_images=1_000, selector_steps=60, repetitions=3, many_samples=300, curve_samples=100, seeds=1,
        two_sample_steps=20, detector_steps=100,
    ),
    "full": Hands(
        base=48, vae_images=256_000, prior_images=512_000, gan_images=64_000, smaller=32, smaller_vae_images=160_000,
        smaller_prior_images=400_000, first_images=80_000, random_pairs_images=64_000, cold_images=83_200,
        selector_images=6_000, selector_steps=600, repetitions=10, many_samples=2_000,
        curve_samples=1_000, seeds=3, two_sample_steps=200, detector_steps=400,
    ),
}  # fmt: skip
HANDS_TUNING = {
    "smoke": HandsTuning(
        vae_trials=2, vae_images=256, prior_images=1_000, start_images=256, start_latents=1_000, gan_trials=2,
        gan_images=64, longer_gan_images=96, finalists=1, seeds=2,
    ),
    "quick": HandsTuning(
        vae_trials=4, vae_images=2_400, prior_images=8_000, start_images=2_400, start_latents=8_000, gan_trials=3,
        gan_images=640, longer_gan_images=1_280, finalists=1, seeds=2,
    ),
    "full": HandsTuning(
        vae_trials=30, vae_images=64_000, prior_images=128_000, start_images=160_000, start_latents=400_000,
        gan_trials=20, gan_images=16_000, longer_gan_images=64_000, finalists=2, seeds=5,
    ),
}  # fmt: skip
CLASSIFIER = {
    "smoke": Classifier(pretraining_images=256, images=256, folds=2, seeds=1),
    "quick": Classifier(pretraining_images=12_000, images=6_000, folds=2, seeds=1),
    "full": Classifier(pretraining_images=192_000, images=40_000, folds=5, seeds=2),
}
CLASSIFIER_TUNING = {
    "smoke": ClassifierTuning(
        trials=2, images=256, shorter_images=256, compared_trials=2, longer_trials=1, finalists=1, seeds=1, folds=2,
        resnet_images=128,
    ),
    "quick": ClassifierTuning(
        trials=4, images=1_024, shorter_images=512, compared_trials=2, longer_trials=1, finalists=1, seeds=1, folds=2,
        resnet_images=1_024,
    ),
    "full": ClassifierTuning(
        trials=30, images=12_800, shorter_images=6_400, compared_trials=10, longer_trials=2,
        finalists=3, seeds=5, folds=5, resnet_images=16_000,
    ),
}  # fmt: skip
HEADS = {
    "smoke": Heads(generated_heads=80, imputer_images=64, imputer_batch=16, ablation_images=32, networks=1),
    "quick": Heads(generated_heads=100, imputer_images=2_400, imputer_batch=16, ablation_images=480, networks=2),
    "full": Heads(generated_heads=1_000, imputer_images=160_000, imputer_batch=16, ablation_images=16_000, networks=3),
}
GARMENTS = {
    "smoke": Garments(
        images=400, curve_images=10, test_images=10, samples=24, classifier_images=256,
        images_seen={"VAE": 512, "GAN": 128, "PixelCNN": 128, "flow": 256, "diffusion": 128},
        class_gan_images=128, warm_vae_images=256, warm_gan_images=64,
        faces_images=dict.fromkeys(config.DATA_SETS[1:], 256),
        trials=1, trial_images={"VAE": 256, "GAN": 128, "PixelCNN": 128, "flow": 256, "diffusion": 128},
    ),
    "quick": Garments(
        images=12_000, curve_images=100, test_images=200, samples=200, classifier_images=15_000,
        images_seen={"VAE": 15_000, "GAN": 1_500, "PixelCNN": 4_000, "flow": 2_000, "diffusion": 3_000},
        class_gan_images=1_500, warm_vae_images=8_000, warm_gan_images=1_500,
        faces_images=dict.fromkeys(config.DATA_SETS[1:], 2_000),
        trials=2, trial_images={"VAE": 2_000, "GAN": 500, "PixelCNN": 500, "flow": 250, "diffusion": 500},
    ),
    "full": Garments(
        images=None, curve_images=500, test_images=10_000, samples=1_000, classifier_images=600_000,
        images_seen={"VAE": 396_800, "GAN": 224_000, "PixelCNN": 243_200, "flow": 256_000, "diffusion": 166_400},
        class_gan_images=115_200, warm_vae_images=320_000, warm_gan_images=192_000,
        faces_images={"CelebA": 51_200, "CelebA in colour": 128_000},
        trials=6, trial_images={"VAE": 14_560, "GAN": 15_000, "PixelCNN": 4_160, "flow": 2_330, "diffusion": 4_160},
    ),
}  # fmt: skip


def reading() -> Reading:
    """How many images are read in this profile."""
    return READING[config.profile()]


def hands() -> Hands:
    """The budget of coursework 1 in this profile."""
    return HANDS[config.profile()]


def hands_tuning() -> HandsTuning:
    """The budget of coursework 1's search in this profile."""
    return HANDS_TUNING[config.profile()]


def classifier() -> Classifier:
    """The budget of coursework 2 in this profile."""
    return CLASSIFIER[config.profile()]


def classifier_tuning() -> ClassifierTuning:
    """The budget of coursework 2's search in this profile."""
    return CLASSIFIER_TUNING[config.profile()]


def heads() -> Heads:
    """The budget of the MRI project in this profile."""
    return HEADS[config.profile()]


def garments() -> Garments:
    """The budget of the final assignment and of its search in this profile."""
    return GARMENTS[config.profile()]
