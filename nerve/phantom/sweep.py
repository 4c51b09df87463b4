"""Which frames a phantom has: stills of each subject's sweep of the probe."""

from typing import NamedTuple

import numpy as np

from nerve.phantom.anatomy import STREAM_PLAN, smooth_random

PREVALENCE, TEST_PREVALENCE = 0.412, 0.47  # share of frames with a nerve, challenge


class Frame(NamedTuple):
    """One picture to make."""

    name: str  # train/3_17 or test/5
    subject: int
    image: int
    sweep: float  # position of the probe, 0 to 1
    nerve: bool  # annotated
    visibility: float  # of the roots, 0 to 1


def plan_frames(
    train: int, test: int, subjects: int, seed: int, prevalence: float = PREVALENCE
) -> list[Frame]:
    """List every frame of the data set, subject by subject.

    The prevalence is the share of the training frames that show a nerve.
    """
    test_subjects = max(round(subjects * test / train), min(4, test))
    frames = plan_subjects(train, subjects, 1, prevalence, seed)
    frames = [f._replace(name=f"train/{f.subject}_{f.image}") for f in frames]
    others = plan_subjects(test, test_subjects, subjects + 1, TEST_PREVALENCE, seed)
    # subject 0 stands for the plan of the test numbers: real subjects start at 1
    numbers = np.random.default_rng([seed, STREAM_PLAN, 0]).permutation(test) + 1
    pairs = zip(others, numbers.tolist(), strict=True)
    return frames + [f._replace(name=f"test/{number}") for f, number in pairs]


def plan_subjects(
    num_frames: int, num_subjects: int, first: int, share: float, seed: int
) -> list[Frame]:
    """Plan sweeps of which `share` of all frames, to the frame, show a nerve."""
    rngs = [
        np.random.default_rng([seed, STREAM_PLAN, first + i]) for i in range(num_subjects)
    ]
    sizes = np.arange(num_frames, num_frames + num_subjects) // num_subjects
    # shares of 0.02 to 0.89 (mean 0.42, sd 0.22) were counted in the challenge
    logits = np.array([rng.normal(-0.4, 1.1) for rng in rngs])
    low, high = -20.0, 20.0
    for _ in range(60):
        shift = (low + high) / 2
        wanted = sizes / (1 + np.exp(-logits - shift))
        low, high = (shift, high) if wanted.sum() < share * num_frames else (low, shift)
    ends = np.floor(np.cumsum(wanted) + 0.5).astype(int)
    ends[-1] = int(share * num_frames + 0.5)
    positives = np.diff(ends, prepend=0)
    frames = []
    for i, rng in enumerate(rngs):
        frames += plan_sweep(rng, first + i, int(sizes[i]), int(positives[i]))
    return frames


def plan_sweep(
    rng: np.random.Generator, subject: int, num_frames: int, num_nerve: int
) -> list[Frame]:
    """Plan one sweep: the nerve shows where a smooth curve of the position is high.

    Frames just below the threshold show roots half out of the plane, unannotated.
    """
    sweep = (np.arange(num_frames) + rng.uniform(0.2, 0.8, num_frames)) / num_frames
    height = smooth_random(rng, 0.4, 1.6)(sweep)
    order = np.sort(height)[::-1]
    edges = np.concatenate([[order[0] + 1], order, [order[-1] - 1]])
    above = height - edges[num_nerve : num_nerve + 2].mean()
    images = rng.permutation(num_frames) + 1
    visible = np.where(above > 0, 0.7 + 0.6 * above, 0.35 + 0.9 * above).clip(0, 1)
    rows = zip(images.tolist(), sweep, above > 0, visible, strict=True)
    return [
        Frame("", subject, image, float(position), bool(nerve), float(visibility))
        for image, position, nerve, visibility in rows
    ]
