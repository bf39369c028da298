"""The numbers that make a walker, drawn from a seed: build, posture, gait, clothes and bag.

Lengths are in body heights, angles in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

CONDITIONS = ("nm", "bg", "cl")
BAGS = ("backpack", "shoulder bag", "handbag")


class Purpose(IntEnum):
    """The purposes that random numbers are drawn for; each has its own stream."""

    PERSON = 1
    DAY = 2
    TASTE = 3
    CHOICE = 4
    NOISE = 5


class Draws:
    """Random numbers for a key of integers.

    They are uniform only, so that no logarithm and no table of a library decides their last bit.
    """

    def __init__(self, purpose: Purpose, *key: int) -> None:
        self._generator = np.random.default_rng([int(purpose), *key])

    def between(self, low: float, high: float) -> float:
        """Draw a number between `low` and `high`."""
        return low + (high - low) * float(self._generator.random())

    def array(self, *shape: int) -> NDArray[np.float32]:
        """Draw an array of numbers in -1..1; one with a longer first axis begins with the same numbers."""
        return (2 * self._generator.random(shape) - 1).astype(np.float32)

    def about(self, value: float, spread: float) -> float:
        """Draw a number within a share `spread` of `value`."""
        return value * self.between(1 - spread, 1 + spread)

    def one_of(self, choices: tuple[str, ...]) -> str:
        """Draw one of the choices."""
        return choices[int(self._generator.random() * len(choices))]

    def side(self) -> int:
        """Draw 1 (left) or -1 (right)."""
        return 1 if self._generator.random() < 0.5 else -1


@dataclass(frozen=True)
class Build:
    """The proportions of a body; widths and depths are half axes."""

    leg: float
    shank_share: float
    foot: float
    arm: float
    forearm_share: float
    shoulder_height: float
    shoulders: float
    chest: float
    waist: float
    hips: float
    chest_depth: float
    belly: float
    seat: float
    head_height: float
    head_width: float
    head_depth: float
    hair: float
    long_hair: float
    neck: float
    thigh: float
    calf: float
    upper_arm: float


@dataclass(frozen=True)
class Posture:
    """The posture of a body; `stance` is the distance of an ankle from the middle line."""

    lean: float
    stoop: float
    head_forward: float
    stance: float
    toe_out: float
    elbow: float
    abduction: float


@dataclass(frozen=True)
class Gait:
    """The gait of a walker.

    `period` is in frames, `phase` in cycles; `hip`, `knee`, `foot` and `arms` are factors on the mean human curves;
    `heading` is off the straight way, and wanders by `drift` within some seconds.
    """

    period: float
    phase: float
    hip: float
    hip_offset: float
    knee: float
    knee_bend: float
    foot: float
    arms: float
    left_arm: float
    right_arm: float
    arm_offset: float
    elbow_swing: float
    pelvis_yaw: float
    shoulder_yaw: float
    pelvis_tilt: float
    sway: float
    bob: float
    heading: float
    drift: float


@dataclass(frozen=True)
class Clothes:
    """The clothes, as additions to the radii of the body; the jacket ends `hem` below the hip joints."""

    bulk: float
    sleeve: float
    trousers: float
    cuff: float
    hem: float
    flare: float
    collar: float


@dataclass(frozen=True)
class Bag:
    """A bag of one of the kinds in `BAGS`; `side` is 1 (left) or -1 (right), `size` a factor."""

    kind: str
    side: int
    size: float


@dataclass(frozen=True)
class Walker:
    """One person in one recording."""

    build: Build
    posture: Posture
    gait: Gait
    clothes: Clothes
    bag: Bag | None


def person(identity: int, seed: int) -> Walker:
    """Draw the walker that all recordings of a person have in common."""
    draws = Draws(Purpose.PERSON, seed, identity)
    b = draws.between
    girth = b(0.86, 1.16)
    build = Build(
        leg=b(0.505, 0.550),
        shank_share=b(0.475, 0.525),
        foot=b(0.135, 0.165),
        arm=b(0.305, 0.345),
        forearm_share=b(0.43, 0.48),
        shoulder_height=b(0.792, 0.818),
        shoulders=b(0.090, 0.112),
        chest=b(0.088, 0.104) * girth,
        waist=b(0.076, 0.100) * girth,
        hips=b(0.086, 0.106) * girth,
        chest_depth=b(0.064, 0.082) * girth,
        belly=b(0.056, 0.086) * girth,
        seat=b(0.068, 0.088) * girth,
        head_height=b(0.064, 0.072),
        head_width=b(0.044, 0.052),
        head_depth=b(0.054, 0.062),
        hair=b(0.002, 0.016),
        long_hair=max(0.0, b(-0.08, 0.08)),
        neck=b(0.034, 0.044),
        thigh=b(0.050, 0.060) * girth,
        calf=b(0.034, 0.042) * girth,
        upper_arm=b(0.028, 0.036) * girth,
    )
    posture = Posture(
        lean=b(-1.0, 6.0),
        stoop=b(0.0, 16.0),
        head_forward=b(0.000, 0.030),
        stance=b(0.018, 0.062),
        toe_out=b(-3.0, 18.0),
        elbow=b(10.0, 36.0),
        abduction=b(3.0, 10.0),
    )
    gait = Gait(
        period=b(25.0, 31.0),
        phase=0.0,
        hip=b(0.90, 1.22),
        hip_offset=b(-3.0, 3.0),
        knee=b(0.82, 1.12),
        knee_bend=b(0.0, 5.0),
        foot=b(0.80, 1.15),
        arms=b(0.70, 2.00),
        left_arm=b(0.70, 1.25),
        right_arm=b(0.70, 1.25),
        arm_offset=b(-12.0, 1.0),
        elbow_swing=b(0.0, 12.0),
        pelvis_yaw=b(2.0, 9.0),
        shoulder_yaw=b(2.0, 9.0),
        pelvis_tilt=b(1.0, 5.0),
        sway=b(0.004, 0.020),
        bob=b(0.0, 3.0),
        heading=0.0,
        drift=0.0,
    )
    clothes = Clothes(
        bulk=b(0.002, 0.012),
        sleeve=b(0.002, 0.010),
        trousers=b(0.003, 0.010),
        cuff=b(0.004, 0.016),
        hem=b(0.020, 0.075),
        flare=b(0.000, 0.010),
        collar=b(0.000, 0.006),
    )
    return Walker(build, posture, gait, clothes, bag=None)


def recording(identity: int, condition: str, take: int, seed: int) -> Walker:
    """Draw a person in one recording: another phase and speed every time, with a bag (`bg`) or a coat (`cl`)."""
    key = seed, identity, CONDITIONS.index(condition)
    walker = _on_another_day(person(identity, seed), Draws(Purpose.DAY, *key, take))
    taste, choice = Draws(Purpose.TASTE, *key), Draws(Purpose.CHOICE, *key, take)
    if condition == "bg":
        return _with_bag(walker, taste, choice)
    if condition == "cl":
        return _in_coat(walker, taste, choice)
    return walker


def _on_another_day(walker: Walker, draws: Draws) -> Walker:
    posture, gait, clothes = walker.posture, walker.gait, walker.clothes
    about, between = draws.about, draws.between
    return replace(
        walker,
        posture=replace(
            posture,
            lean=posture.lean + between(-1.5, 1.5),
            stoop=posture.stoop + between(-2.5, 2.5),
            head_forward=posture.head_forward + between(-0.006, 0.006),
            stance=about(posture.stance, 0.15),
            elbow=posture.elbow + between(-5.0, 5.0),
            abduction=posture.abduction + between(-1.5, 1.5),
        ),
        gait=replace(
            gait,
            period=about(gait.period, 0.04),
            phase=between(0.0, 1.0),
            hip=about(gait.hip, 0.06),
            knee=about(gait.knee, 0.04),
            foot=about(gait.foot, 0.04),
            arms=about(gait.arms, 0.20),
            arm_offset=gait.arm_offset + between(-3.0, 3.0),
            sway=about(gait.sway, 0.25),
            heading=between(-4.0, 4.0),
            drift=between(-3.0, 3.0),
        ),
        clothes=replace(
            clothes,
            bulk=clothes.bulk + between(-0.002, 0.002),
            hem=clothes.hem + between(-0.008, 0.008),
            cuff=clothes.cuff + between(-0.002, 0.002),
        ),
    )


def _with_bag(walker: Walker, taste: Draws, choice: Draws) -> Walker:
    kind, size = taste.one_of(BAGS), taste.between(0.85, 1.2)
    bag = Bag(kind, choice.side(), size * choice.between(0.92, 1.08))
    gait, posture = walker.gait, walker.posture
    if kind == "backpack":
        gait = replace(gait, arms=gait.arms * 0.8)
        return replace(walker, gait=gait, posture=replace(posture, lean=posture.lean + 2.5), bag=bag)
    held = choice.between(0.1, 0.35)
    if bag.side == 1:
        gait = replace(gait, left_arm=gait.left_arm * held)
    else:
        gait = replace(gait, right_arm=gait.right_arm * held)
    return replace(walker, gait=gait, bag=bag)


def _in_coat(walker: Walker, taste: Draws, choice: Draws) -> Walker:
    clothes, gait, posture = walker.clothes, walker.gait, walker.posture
    coat = replace(
        clothes,
        bulk=clothes.bulk + taste.between(0.006, 0.016) + choice.between(-0.002, 0.002),
        sleeve=clothes.sleeve + taste.between(0.005, 0.012),
        hem=taste.between(0.06, 0.24) + choice.between(-0.01, 0.01),
        flare=taste.between(0.000, 0.015) + choice.between(0.000, 0.004),
        collar=taste.between(0.004, 0.024),
    )
    gait = replace(gait, arms=gait.arms * taste.between(0.5, 0.8), hip=gait.hip * 0.96)
    return replace(
        walker, clothes=coat, gait=gait, posture=replace(posture, abduction=posture.abduction + taste.between(2.0, 6.0))
    )
