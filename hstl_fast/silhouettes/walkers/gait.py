"""The body of a walker in motion: joints in space from mean human joint angles, and the solids around them.

The angles are those of D. A. Winter, Biomechanics and Motor Control of Human Movement. The axes are x ahead, y to the
left and z up; the unit is one body height.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.walkers.body import Walker

Floats = NDArray[np.float64]

# The curves are degrees at every twentieth of a cycle that starts with the contact of the heel; FOOT is the pitch of
# the sole, positive with the toes up.
HIP = np.array([28, 27, 24, 20, 16, 11, 6, 1, -3, -7, -10, -9, -3, 6, 16, 24, 30, 32, 31, 29], np.float64)
KNEE = np.array([5, 10, 16, 18, 16, 13, 9, 6, 5, 6, 11, 20, 36, 52, 60, 57, 44, 26, 10, 3], np.float64)
FOOT = np.array([23, 13, 3, 1, 1, 1, 1, 0, 0, -3, -14, -32, -52, -62, -54, -36, -14, 8, 20, 25], np.float64)
ARM_SWING = 17.0
ANKLE_HEIGHT = 0.040
# The toes keep this share of the pitch of the foot while the heel is up.
TOE_BEND = 0.35
# The outline of the trunk is given at these heights: 0 at the hip joints, 1 at the shoulder joints.
KNOTS = np.array([-1.0, 0.0, 0.20, 0.42, 0.70, 0.90, 1.00, 1.10, 1.22])
# The trunk has so many sections, from the hem of the jacket to the neck.
LEVELS = 40
# The heading goes to one side and back within this many frames.
WANDERING = 90


@dataclass(frozen=True)
class Bone:
    """A round cone with round ends: its ends `start` and `end` `[3, T]` and the radii there."""

    start: Floats
    end: Floats
    start_radius: float
    end_radius: float


@dataclass(frozen=True)
class Ball:
    """An upright ellipsoid: its `centre` `[3, T]`, its half axes and its `yaw` `[T]` in radians."""

    centre: Floats
    lateral: float
    sagittal: float
    vertical: float
    yaw: Floats


@dataclass(frozen=True)
class Trunk:
    """Elliptic sections at equal steps of height, from the hem up.

    `centres` are `[3, LEVELS, T]`, the half axes and `yaw` `[LEVELS, T]`.
    """

    centres: Floats
    lateral: Floats
    sagittal: Floats
    yaw: Floats


@dataclass(frozen=True)
class Figure:
    """All solids that cast the silhouette.

    `crown` holds the balls that may be the highest, `soles` the bones that may be the lowest; `heading` is `[T]` in
    radians.
    """

    trunk: Trunk
    bones: list[Bone]
    crown: list[Ball]
    soles: list[Bone]
    bags: list[Ball]
    heading: Floats


@dataclass(frozen=True)
class _Leg:
    hip: Floats
    knee: Floats
    ankle: Floats
    heel: Floats
    ball: Floats
    toe: Floats


@dataclass(frozen=True)
class _Pelvis:
    centre: Floats
    yaw: Floats
    tilt: Floats


def figure(walker: Walker, frames: int) -> Figure:
    """Compute the solids of a walker in `frames` consecutive frames."""
    cycle = walker.gait.phase + np.arange(frames) / walker.gait.period
    pelvis = _pelvis(walker, cycle)
    legs = [_leg(walker, pelvis, cycle + (0.0 if side == 1 else 0.5), side) for side in (1, -1)]
    trunk, spine = _trunk(walker, pelvis, legs, cycle)
    arms, hands = _arms(walker, spine, cycle)
    crown, neck = _head(walker, spine)
    soles = [bone for leg in legs for bone in _foot(walker, leg)]
    bones = [bone for leg in legs for bone in _leg_bones(walker, leg)]
    bags = _bags(walker, spine, pelvis, hands)
    heading = np.radians(walker.gait.heading + walker.gait.drift * _wave(np.arange(frames) / WANDERING))
    return Figure(trunk, [*bones, *soles, *arms, neck], crown, soles, bags, heading)


def _periodic(curve: Floats, cycle: Floats) -> Floats:
    """Interpolate `curve` `[k]`, one period at equal steps, at `cycle` (1 is a whole period) by Catmull-Rom splines."""
    place = (cycle - np.floor(cycle)) * len(curve)
    i = np.floor(place).astype(np.intp)
    u = place - i
    a, b, c, d = (curve[(i + k) % len(curve)] for k in (-1, 0, 1, 2))
    return b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))


def _wave(cycle: Floats, lag: float = 0.0) -> Floats:
    return np.asarray(np.cos(2 * np.pi * (cycle - lag)))


def _point(x: Floats | float, y: Floats | float, z: Floats | float) -> Floats:
    return np.stack(np.broadcast_arrays(np.atleast_1d(x), y, z)).astype(np.float64)


def _pelvis(walker: Walker, cycle: Floats) -> _Pelvis:
    """The pelvis, centred between the hip joints; the left heel touches the ground at cycle 0."""
    gait = walker.gait
    centre = _point(0.0, gait.sway * _wave(cycle, 0.25), np.zeros_like(cycle))
    yaw = -np.radians(gait.pelvis_yaw) * _wave(cycle)
    return _Pelvis(centre, yaw, np.radians(gait.pelvis_tilt) * _wave(cycle, 0.25))


def _leg(walker: Walker, pelvis: _Pelvis, cycle: Floats, side: int) -> _Leg:
    build, gait, posture = walker.build, walker.gait, walker.posture
    thigh = np.radians(gait.hip_offset + gait.hip * _periodic(HIP, cycle) + 0.5 * gait.knee_bend)
    knee_angle = np.radians(gait.knee * _periodic(KNEE, cycle) + gait.knee_bend)
    pitch = np.radians(gait.foot * _periodic(FOOT, cycle))
    length = build.leg - ANKLE_HEIGHT
    shank_length = length * build.shank_share
    width = 0.52 * build.hips
    inwards = side * (posture.stance - width) / length
    hip = pelvis.centre + _point(
        -side * width * np.sin(pelvis.yaw), side * width * np.cos(pelvis.yaw), side * width * np.sin(pelvis.tilt)
    )
    knee = hip + (length - shank_length) * _swung(thigh, inwards)
    ankle = knee + shank_length * _swung(thigh - knee_angle, inwards)
    toe_pitch = np.where(pitch < 0, TOE_BEND * pitch, pitch)
    yaw = np.radians(side * posture.toe_out) + 0.5 * pelvis.yaw
    heel = ankle + _along_foot(pitch, yaw, -0.17 * build.foot, -ANKLE_HEIGHT + 0.022)
    ball = ankle + _along_foot(pitch, yaw, 0.48 * build.foot, -ANKLE_HEIGHT + 0.017)
    toe = ball + _along_foot(toe_pitch, yaw, 0.24 * build.foot, -0.003)
    return _Leg(hip, knee, ankle, heel, ball, toe)


def _swung(angle: Floats, outwards: float) -> Floats:
    """The direction of a limb that hangs down, swung forward by `angle`."""
    return _point(np.sin(angle), outwards, -np.cos(angle))


def _along_foot(pitch: Floats, yaw: Floats, ahead: float, up: float) -> Floats:
    level = ahead * np.cos(pitch) - up * np.sin(pitch)
    return _point(level * np.cos(yaw), level * np.sin(yaw), ahead * np.sin(pitch) + up * np.cos(pitch))


def _leg_bones(walker: Walker, leg: _Leg) -> list[Bone]:
    build, clothes = walker.build, walker.clothes
    thigh, calf = build.thigh + clothes.trousers, build.calf + clothes.trousers
    knee, cuff = 0.72 * build.thigh + clothes.trousers, 0.60 * build.calf + clothes.cuff
    belly_of_calf = leg.knee + 0.30 * (leg.ankle - leg.knee)
    shin = leg.ankle - leg.knee
    backwards = _point(shin[2], 0.0, -shin[0])
    calf_centre = belly_of_calf + 0.035 * backwards
    return [
        Bone(leg.hip, leg.knee, thigh, knee),
        Bone(leg.knee, calf_centre, knee, calf),
        Bone(calf_centre, leg.ankle, calf, cuff),
    ]


def _foot(walker: Walker, leg: _Leg) -> list[Bone]:
    return [
        Bone(leg.heel, leg.ball, 0.022, 0.019),
        Bone(leg.ball, leg.toe, 0.019, 0.014),
        Bone(leg.ankle, leg.ball, 0.030, 0.017),
    ]


@dataclass(frozen=True)
class _Spine:
    """The upper end of the trunk: where arms, neck and bags hang."""

    base: Floats
    shoulders: Floats
    top: Floats
    yaw: Floats


def _spine_at(walker: Walker, pelvis: _Pelvis, cycle: Floats, height: Floats) -> Floats:
    """Points `[3, k, T]` of the spine at heights `[k]` above the hip joints."""
    posture, gait = walker.posture, walker.gait
    length = walker.build.shoulder_height - walker.build.leg
    up = np.maximum(height, 0.0)[:, None] / length
    lean = np.radians(posture.lean + gait.bob * _wave(2 * cycle, 0.1))
    ahead = np.tan(lean) * up * length + np.tan(np.radians(posture.stoop)) * 0.5 * length * up * up
    aside = -0.35 * gait.sway * _wave(cycle, 0.25) * up
    return pelvis.centre[:, None] + _point(ahead, aside, height[:, None])


def _trunk(walker: Walker, pelvis: _Pelvis, legs: list[_Leg], cycle: Floats) -> tuple[Trunk, _Spine]:
    build, clothes = walker.build, walker.clothes
    length = build.shoulder_height - build.leg
    heights = -clothes.hem + (KNOTS[-1] * length + clothes.hem) * np.arange(LEVELS) / (LEVELS - 1)
    lateral, front, back = (_profile(knots, heights / length) for knots in _outline(walker))
    below = np.maximum(-heights, 0.0) / max(clothes.hem, 1e-3)
    lateral = lateral + clothes.flare * below
    shoulder_yaw = np.radians(walker.gait.shoulder_yaw) * _wave(cycle)
    up = np.clip(heights / length, 0.0, 1.0)[:, None]
    yaw = pelvis.yaw * (1 - up) + shoulder_yaw * up
    spine = _spine_at(walker, pelvis, cycle, heights)
    ahead, behind = spine[0] + front[:, None], spine[0] - back[:, None]
    reach = build.thigh + clothes.trousers + 0.6 * clothes.bulk + clothes.flare * below[:, None]
    for leg in legs:
        thigh = _thigh_at(leg, heights)
        ahead, behind = np.fmax(ahead, thigh + reach), np.fmin(behind, thigh - reach)
    sagittal, shift = 0.5 * (ahead - behind), 0.5 * (ahead + behind) - spine[0]
    centres = spine + _point(shift * np.cos(yaw), shift * np.sin(yaw), 0.0)
    ends = _spine_at(walker, pelvis, cycle, np.array([0.0, length, 1.12 * length]))
    trunk = Trunk(centres, np.broadcast_to(lateral[:, None], yaw.shape), sagittal, yaw)
    return trunk, _Spine(ends[:, 0], ends[:, 1], ends[:, 2], shoulder_yaw)


def _thigh_at(leg: _Leg, heights: Floats) -> Floats:
    """How far ahead the middle of the thigh is, `[k, T]`, below the hip joints; NaN above them."""
    below = np.where(heights < 0, -heights, np.nan)[:, None]
    return np.asarray(leg.hip[0] + below * (leg.knee[0] - leg.hip[0]) / (leg.hip[2] - leg.knee[2]))


def _outline(walker: Walker) -> list[Floats]:
    """The half width, the front depth and the back depth of the trunk at the knots."""
    build, clothes = walker.build, walker.clothes
    hips, waist, chest, neck = build.hips, build.waist, build.chest, build.neck + clothes.collar
    seat, belly, depth = build.seat, build.belly, build.chest_depth
    lateral = np.array([hips, hips, 0.97 * hips, waist, chest, 1.04 * chest, 0.92 * build.shoulders, 0.066, neck])
    front = np.array([0.85 * seat, 0.85 * seat, belly, belly, depth, 0.85 * depth, 0.65 * depth, 0.046, neck])
    back = np.array([seat, seat, 0.9 * seat, 0.75 * depth, depth, 1.05 * depth, 0.85 * depth, 0.050, neck])
    loose = clothes.bulk * np.array([1, 1, 1, 1, 1, 1, 1, 0.7, 0.0])
    return [lateral + loose, front + loose, back + loose]


def _profile(values: Floats, heights: Floats) -> Floats:
    """Interpolate `values` at the knots at other heights, halfway between straight lines and smooth steps."""
    i = np.clip(np.searchsorted(KNOTS, heights, side="right") - 1, 0, len(KNOTS) - 2)
    u = np.clip((heights - KNOTS[i]) / (KNOTS[i + 1] - KNOTS[i]), 0.0, 1.0)
    u = u * (0.5 + u * (1.5 - u))
    return np.asarray(values[i] * (1 - u) + values[i + 1] * u)


def _arms(walker: Walker, spine: _Spine, cycle: Floats) -> tuple[list[Bone], dict[int, Floats]]:
    build, posture, gait, clothes = walker.build, walker.posture, walker.gait, walker.clothes
    upper, elbow = build.upper_arm + clothes.sleeve, 0.85 * build.upper_arm + clothes.sleeve
    wrist = 0.60 * build.upper_arm + 0.7 * clothes.sleeve
    bones, hands = [], {}
    for side in (1, -1):
        factor = gait.arms * (gait.left_arm if side == 1 else gait.right_arm)
        swing = -side * _wave(cycle, 0.03)
        shoulder = spine.shoulders + (build.shoulders - 0.2 * upper) * side * _point(
            -np.sin(spine.yaw), np.cos(spine.yaw), -0.08 * side
        )
        angle = np.radians(gait.arm_offset + ARM_SWING * factor * swing)
        bend = np.radians(posture.elbow + gait.elbow_swing * min(factor, 1.0) * (swing + 0.5))
        out = side * np.sin(np.radians(posture.abduction))
        elbow_joint = shoulder + build.arm * (1 - build.forearm_share) * _swung(angle, out)
        hand = elbow_joint + build.arm * build.forearm_share * _swung(angle + bend, 0.2 * out)
        tip = hand + 0.050 * _swung(angle + 1.1 * bend, -0.2 * out)
        bones += [
            Bone(shoulder, elbow_joint, upper, elbow),
            Bone(elbow_joint, hand, elbow, wrist),
            Bone(hand, tip, 0.021, 0.019),
        ]
        hands[side] = tip
    return bones, hands


def _head(walker: Walker, spine: _Spine) -> tuple[list[Ball], Bone]:
    build, posture, clothes = walker.build, walker.posture, walker.clothes
    yaw = 0.3 * spine.yaw
    middle = 1.0 - build.head_height - build.shoulder_height
    centre = spine.shoulders + _point(posture.head_forward + 0.012, 0.0, middle)
    jaw = centre + _point(0.35 * build.head_depth, 0.0, -0.45 * build.head_height)
    skull = Ball(centre, build.head_width, build.head_depth, build.head_height, yaw)
    chin = Ball(jaw, 0.75 * build.head_width, 0.55 * build.head_depth, 0.52 * build.head_height, yaw)
    hair = Ball(
        centre + _point(-0.25 * build.head_depth, 0.0, 0.12 * build.head_height - 0.5 * build.long_hair),
        build.head_width + 0.8 * build.hair,
        0.85 * build.head_depth + 0.6 * build.hair,
        0.90 * build.head_height + 0.5 * build.hair + 0.5 * build.long_hair,
        yaw,
    )
    neck = Bone(spine.top, centre, build.neck + clothes.collar, build.neck)
    return [skull, chin, hair], neck


def _bags(walker: Walker, spine: _Spine, pelvis: _Pelvis, hands: dict[int, Floats]) -> list[Ball]:
    bag, build, bulk = walker.bag, walker.build, walker.clothes.bulk
    if bag is None:
        return []
    if bag.kind == "backpack":
        middle = spine.base + 0.70 * (spine.shoulders - spine.base)
        back = build.chest_depth + bulk + 0.018 * bag.size
        centre = middle - back * _point(np.cos(spine.yaw), np.sin(spine.yaw), 0.0)
        return [Ball(centre, 0.085 * bag.size, 0.060 * bag.size, 0.120 * bag.size, spine.yaw)]
    if bag.kind == "shoulder bag":
        aside = bag.side * (build.hips + bulk + 0.025)
        centre = pelvis.centre + _point(-0.02 - aside * np.sin(pelvis.yaw), aside * np.cos(pelvis.yaw), 0.045)
        return [Ball(centre, 0.036 * bag.size, 0.095 * bag.size, 0.085 * bag.size, pelvis.yaw)]
    return [
        Ball(hands[bag.side] - _point(0.0, 0.0, 0.070 * bag.size), 0.03, 0.085 * bag.size, 0.07 * bag.size, pelvis.yaw)
    ]
