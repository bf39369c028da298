"""Foreground masks of footage: the pixels that move, whatever the light and the tremble of the camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.camera import Camera, judge_camera, small
from hstl_fast.silhouettes.video.light import Light, cells, light_of, relit
from hstl_fast.silhouettes.video.registration import AGREEING, Motion, Reference, registered

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]
# The background model learns from at most so many frames and bytes.
TRAINING_FRAMES = 200
TRAINING_BYTES = 512 * 2**20
# One pair of neighbours is compared for every so many training frames.
PAIR_SPACING = 5
# A pixel is foreground from this squared distance to the background on, in variances of the pixel.
MIN_CONTRAST = 25.0
# A pixel at least this fraction as bright as the background and of its colour is a shadow.
SHADOW_DARKEST = 0.5
# The background of a pixel is its most frequent colours that together fill this share of the time.
# Registered frames leave more colours at the edges of the background.
BACKGROUND_SHARE, REGISTERED_SHARE = 0.5, 0.7
# OpenCV marks foreground and shadows by these values.
FOREGROUND, SHADOW = 255, 127
# Footage has no colours where its channels differ by no more than this many grey levels, in all but one pixel of a
# hundred, looked at on every so many pixels.
COLOURLESS, COLOUR_STEP = 6, 8
# In footage without colours, a darkened pixel belongs to the body when at least so many foreground pixels are above it
# and as many below, within this share of the least height of a body.
STANDING, REACH = 3, 0.4
# A frame is of another light when less than this share of its cells agree with the background after a smooth change
# of the brightness; such a light has a background of its own if it fills at least this number of training frames.
SAME_LIGHT, LIGHT_FRAMES, MOST_LIGHTS = 0.5, 8, 4
# So many different lights are looked at; with more of them it is not the light that changes.
MOST_LEADERS = 8


class Foreground(NamedTuple):
    """The foreground of one frame.

    Attributes:
        mask: Bool `[H, W]`, where the background lies as in all other frames.
        motion: Map from the mask's pixels to the frame's, or None where they are the same.
    """

    mask: NDArray[np.bool_]
    motion: Motion | None


@dataclass(frozen=True, eq=False)
class Learnt:
    """Frames from which a background is learnt, spread over a video.

    Attributes:
        samples: Frames `[H, W, 3]`.
        pairs: Neighbouring frames, reduced in size.
    """

    samples: list[Picture]
    pairs: list[tuple[Picture, Picture]]


class Sampler:
    """Chooses evenly spread frames of a video whose length is not known.

    At most `limit` frames are held: whenever there is one more, every other one is given up.

    Args:
        limit: Most frames to hold, 2 or more.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(2, limit)
        self._stride = 1
        self._held: dict[int, Picture] = {}
        self._pairs: dict[int, tuple[Picture, Picture]] = {}

    def wants(self, index: int) -> bool:
        """Tell whether the frame of this index is to be given to `add`."""
        return index % self._stride == 0 or self._starts_pair(index - 1)

    def add(self, index: int, picture: Picture) -> None:
        """Take a frame."""
        if self._starts_pair(index - 1) and index - 1 in self._held:
            self._pairs[index - 1] = small(self._held[index - 1]), small(picture)
        if index % self._stride == 0:
            self._held[index] = picture
        if len(self._held) > self._limit:
            self._stride *= 2
            spread = {i: kept for i, kept in self._held.items() if i % self._stride == 0}
            self._held = spread or dict(list(self._held.items())[::2])  # every other frame of the video may be black
            self._pairs = {i: kept for i, kept in self._pairs.items() if self._starts_pair(i)}

    def learnt(self) -> Learnt:
        """Return the frames held and their neighbours; the sampler forgets the frames."""
        held, self._held = self._held, {}
        return Learnt(list(held.values()), list(self._pairs.values()))

    def _starts_pair(self, index: int) -> bool:
        return index >= 0 and index % (PAIR_SPACING * self._stride) == 0


def training_frames(frame_bytes: int) -> int:
    """Number of frames to learn from: at most TRAINING_FRAMES, and TRAINING_BYTES together."""
    return min(TRAINING_FRAMES, max(2, TRAINING_BYTES // frame_bytes))


class Background:
    """The background of a whole video, from which the foreground of any of its frames follows.

    Frames of a trembling camera are registered, and their light is brought to that of the background; lights that
    differ by more than a smooth change of the brightness have backgrounds of their own. Frames of a steady camera in a
    steady light are taken as they are. The same frame always gives the same mask.

    Args:
        learnt: Frames of the whole video; its samples are used up.
        min_height: Least height of a body, in pixels.

    Attributes:
        camera: How the camera behaves.
        lights: Number of lights.
        unregistered: Frames so far whose motion could not be measured.
        relit: Frames so far whose light was changed.
    """

    def __init__(self, learnt: Learnt, min_height: int) -> None:
        self.camera: Camera = judge_camera(learnt.samples, learnt.pairs)
        self.unregistered = self.relit = 0
        samples = learnt.samples
        self._reference: Reference | None = None
        if self.camera.trembles:
            self._reference = _reference_among(samples)
            samples[:] = [there for there in map(self._registered, samples) if there is not None]
        reach = max(3, round(REACH * min_height)) if _colourless(samples) else None
        share = REGISTERED_SHARE if self.camera.trembles else BACKGROUND_SHARE
        grids = [cells(sample) for sample in samples]
        lights = [list(range(len(samples)))] if self.camera.moves else _by_light(grids)
        self._scenes = [_Scene(samples, members, reach, share) for members in lights]
        self.lights = len(self._scenes)

    def foreground(self, frame: Picture) -> Foreground:
        """Compute the foreground of a frame `[H, W, 3]`; all False where it cannot be registered."""
        motion = None
        if self._reference is not None:
            motion = self._reference.motion_of(frame)
            if motion is None:
                self.unregistered += 1
                return Foreground(np.zeros(frame.shape[:2], bool), None)
            frame = registered(frame, motion)
        grid = cells(frame)
        lights = [light_of(grid, scene.cells) for scene in self._scenes]
        best = max(range(len(lights)), key=lambda i: lights[i].agreement)
        self.relit += lights[best].changed
        return Foreground(self._scenes[best].mask(frame, lights[best]), motion)

    def _registered(self, sample: Picture) -> Picture | None:
        if self._reference is None:
            return sample
        motion = self._reference.motion_of(sample)
        return registered(sample, motion) if motion else None


def _reference_among(samples: list[Picture]) -> Reference | None:
    """The sample nearest to the middle that has enough features; a flash has none, and nothing would be left."""
    middle = len(samples) // 2
    nearest = sorted(range(len(samples)), key=lambda i: abs(i - middle))
    references = (Reference(samples[i]) for i in nearest)
    return next((reference for reference in references if reference.num_corners >= AGREEING), None)


class _Scene:
    """The background in one light."""

    def __init__(self, samples: list[Picture], members: list[int], reach: int | None, share: float) -> None:
        grids = [cells(samples[i]) for i in members]
        middle = _typical(grids)
        for i, grid in zip(members, grids, strict=True):  # in place, since the frames of a long video fill the memory
            samples[i] = relit(samples[i], light_of(grid, middle))
        self.model = BackgroundModel([samples[i] for i in members], reach, share)
        self.picture = self.model.picture()
        self.cells = middle

    def mask(self, frame: Picture, light: Light) -> NDArray[np.bool_]:
        return self.model.mask(relit(frame, light, self.picture))


def _typical(grids: list[Floats]) -> Floats:
    """The cells of the background in a light that one of the frames has."""
    first = grids[len(grids) // 2]
    alike = []
    for grid in grids:
        light = light_of(grid, first)
        alike.append((grid - light.offset) / light.gain)
    return np.asarray(np.median(alike, axis=0), np.float32)


def _by_light(grids: list[Floats]) -> list[list[int]]:
    """Indices of the frames of each light, the most frequent first; frames of a rare light are left out."""
    leaders: list[Floats] = []
    members: list[list[int]] = []
    for i, grid in enumerate(grids):
        agreements = [light_of(grid, leader).agreement for leader in leaders]
        best = int(np.argmax(agreements)) if agreements else -1
        if best < 0 or (agreements[best] < SAME_LIGHT and len(leaders) < MOST_LEADERS):
            leaders.append(grid)
            members.append([i])
        else:
            members[best].append(i)
    members.sort(key=len, reverse=True)
    return members[:1] + [light for light in members[1:MOST_LIGHTS] if len(light) >= LIGHT_FRAMES]


def _colourless(samples: list[Picture]) -> bool:
    """Tell whether the frames are those of a grey or infrared camera."""
    spread = [np.ptp(sample[::COLOUR_STEP, ::COLOUR_STEP].astype(np.int16), axis=2) for sample in samples]
    return bool(np.percentile(spread, 99) <= COLOURLESS)


class BackgroundModel:
    """A Gaussian mixture of OpenCV (MOG2), learnt from frames of the whole footage before the first mask is computed.

    Every training frame counts the same, and neighbours are learnt far apart, so that a person who stands still for a
    while is not learnt as background and early frames are as good as late ones. The model is then frozen: the same
    frame always gives the same mask.

    What is darker than the background and of its colour is a shadow. Without colours every grey coat would be one, so
    that there the shape decides: a shadow lies on the ground, and no body stands on it and goes on below it.

    Args:
        frames: Frames `[H, W, 3]`.
        reach: Pixels within which a body goes on above and below a darkened pixel, for footage without colours; None
            for footage with colours.
        share: Share of the time that the background's colours fill together.
    """

    def __init__(self, frames: list[Picture], reach: int | None = None, share: float = BACKGROUND_SHARE) -> None:
        self._reach = reach
        self._mixture = opencv().createBackgroundSubtractorMOG2(
            history=2 * len(frames), varThreshold=MIN_CONTRAST, detectShadows=True
        )
        self._mixture.setShadowThreshold(SHADOW_DARKEST)
        self._mixture.setShadowValue(SHADOW)
        self._mixture.setBackgroundRatio(share)
        for seen, i in enumerate(_interleaved(len(frames)), start=1):
            self._mixture.apply(frames[i], learningRate=1 / seen)

    def picture(self) -> Picture:
        """Return the background `[H, W, 3]` itself."""
        return np.asarray(self._mixture.getBackgroundImage(), np.uint8)

    def mask(self, frame: Picture) -> NDArray[np.bool_]:
        """Compute the foreground, bool `[H, W]`, of a frame `[H, W, 3]`: no shadows, specks, lines under three rows."""
        cv2 = opencv()
        raw = self._mixture.apply(frame, learningRate=0)
        moving = (raw == FOREGROUND).astype(np.uint8)
        if self._reach is not None:
            moving |= (raw == SHADOW) & _enclosed(moving, self._reach)
        moving = cv2.medianBlur(moving, 3)
        moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((3, 1), np.uint8))
        closed = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, np.ones((5, 1), np.uint8))
        return np.asarray(closed > 0)


def _enclosed(body: Picture, reach: int) -> NDArray[np.bool_]:
    """Bool `[H, W]`: whether at least three pixels of the body are near above and at least three near below."""
    cv2 = opencv()
    size, border = (3, reach + 1), cv2.BORDER_CONSTANT
    ends = ((1, reach), (1, 0))  # the lowest and the highest pixel of the window
    counts = [cv2.boxFilter(body, cv2.CV_16U, size, None, end, False, border) for end in ends]
    return np.asarray((counts[0] >= STANDING) & (counts[1] >= STANDING))


def _interleaved(count: int) -> list[int]:
    """The numbers 0..count-1 in an order in which neighbours are far apart."""
    stride = max(1, int(count**0.5))
    return [i for start in range(stride) for i in range(start, count, stride)]
