"""Pictures with boxes and names, in any letters."""

import numpy as np
import pytest

pytest.importorskip("cv2")

from hstl_fast.recognition import Answer, Match
from hstl_fast.recognition.live import drawing, lettering
from hstl_fast.recognition.live.drawing import draw, lines
from hstl_fast.recognition.live.events import Frame, Seen, Update
from hstl_fast.recognition.live.lettering import plain, written


def answer(name: str | None, margin: float | None = 0.04) -> Answer:
    match = Match(name or "nearest", 1, "door.mp4-track01", 0.213)
    return Answer("street", name, (match,), 0.3, 0.01, margin, np.zeros(3, np.float32))


def update(image: np.ndarray, *seen: Seen) -> Update:
    return Update(Frame(7, 0.28, 12.0, image), seen, (), 24.87, 0.083, 3)


def test_labels_say_who_how_far_and_how_sure() -> None:
    assert lines(Seen(1, (0, 0, 9, 9), 30, answer("Anna"))) == ("Anna", "0.21 +0.04")
    assert lines(Seen(1, (0, 0, 9, 9), 30, answer(None, None))) == ("nobody", "0.21")
    assert lines(Seen(1, (0, 0, 9, 9), 12, None)) == ("12 frames",)
    assert lines(Seen(1, (0, 0, 9, 9), 30, answer("A" * 40)))[0] == "A" * 22 + ".."
    nobody_known = Answer("street", None, (), None, None, None, np.zeros(0, np.float32))
    assert lines(Seen(1, (0, 0, 9, 9), 30, nobody_known)) == ("nobody",)


def test_boxes_have_the_colour_of_the_answer_and_the_frame_stays() -> None:
    image = np.full((300, 400, 3), 60, np.uint8)
    seen = [Seen(1, (50, 100, 60, 120), 30, answer("Anna")), Seen(2, (250, 100, 60, 120), 30, answer(None))]
    drawn = draw(update(image, *seen))
    assert (image == 60).all()
    assert drawn.shape == image.shape
    assert tuple(drawn[219, 80]) == drawing.NAMED
    assert tuple(drawn[219, 280]) == drawing.NOBODY
    assert (drawn[120:200, 60:100] == 60).all()


def test_labels_stand_apart_and_in_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[drawing._Box] = []
    put = drawing._put
    monkeypatch.setattr(drawing, "_put", lambda *arguments: (placed.append(put(*arguments)), placed[-1])[1])
    boxes = [(200, 150, 40, 90), (220, 160, 40, 90), (0, 0, 20, 50), (395, 290, 40, 90), (-30, 280, 40, 90)]
    draw(update(np.zeros((300, 400, 3), np.uint8), *(Seen(i, box, 30, answer("Anna")) for i, box in enumerate(boxes))))
    assert len(placed) == 6
    for number, box in enumerate(placed):
        assert 0 <= box.left < box.right <= 400
        assert 0 <= box.top < box.bottom <= 300
        assert not any(box.meets(other) for other in placed[:number])


def test_small_pictures_are_enlarged() -> None:
    drawn = draw(update(np.zeros((120, 160, 3), np.uint8), Seen(1, (20, 20, 12, 30), 30, answer("Anna"))))
    assert drawn.shape == (240, 320, 3)


@pytest.mark.parametrize("text", ["Anna 0.21", "Zoë Łukasiewicz", "Привет", "王小明"])
@pytest.mark.parametrize("system", [True, False])
def test_letters_of_any_alphabet_are_drawn(text: str, system: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not system:
        monkeypatch.setattr(lettering, "_system_fonts", lambda size: ())
        if not (text.isascii() or hasattr(lettering.opencv(), "FontFace")):
            pytest.skip("this OpenCV brings no fonts along")
    ink = written(text, 20)
    assert ink.dtype == np.uint8
    assert 14 <= ink.shape[0] <= 32
    assert not np.array_equal(ink, written("?" * len(text), 20))
    # Each letter leaves its ink.
    letters = text.replace(" ", "")
    widths = [written(letters[:length], 20).shape[1] for length in range(1, len(letters) + 1)]
    assert widths == sorted(set(widths))
    assert (ink > 128).sum() > 10 * len(letters)


def test_letters_that_no_font_has_become_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_system_fonts", lambda size: ())
    monkeypatch.setattr(lettering, "opencv", object)
    assert np.array_equal(written("Zoë 王", 20), written("Zoe ?", 20))
    assert plain("Zoë 王") == "Zoe ?"


def test_a_font_without_a_letter_is_not_taken() -> None:
    font = lettering._own_font(20)
    assert not lettering._missing(font, "Anna")
    assert lettering._missing(font, "Zoë")
