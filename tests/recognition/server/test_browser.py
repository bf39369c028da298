"""The page in a browser: Debian's Chromium, driven by Selenium."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hstl_fast.network import Network
from hstl_fast.recognition import Gallery
from hstl_fast.recognition.live.drawing import draw
from hstl_fast.recognition.live.sources import open_source
from hstl_fast.recognition.live.watcher import Watcher
from hstl_fast.recognition.server import GalleryPage, LivePage
from tests.helpers.page import PretendedGallery, PretendedSource, PretendedWatcher, picture, update
from tests.silhouettes.video.footage import Walker, write_video

pytestmark = pytest.mark.slow
pytest.importorskip("starlette", reason="needs the extra [recognition]")
pytest.importorskip("uvicorn", reason="needs the extra [recognition]")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra [browser]")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("needs chromium and chromedriver", allow_module_level=True)

# Seconds until what has to appear in the page counts as missing.
PATIENCE = 20
LONG = "Dorothea Maximiliane von und zu Hohenlangenburg"
HOSTILE = '<b>Cem&"<img src=x onerror=alert(1)>'


class Browser:
    """A browser with one page in it."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        arguments = ["--headless=new", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"]
        # Chromium refuses to run as root in a sandbox.
        arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
        for argument in arguments:
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.complaints()
        self.driver.get(url)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition holds, and return what it gives."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        waiting = WebDriverWait(
            self.driver, PATIENCE, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(lambda _: condition(), f"{what}; the page shows: {self.text('body')}")

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        return self.driver.find_element("css selector", selector).text

    def shows(self, selector: str, text: str) -> None:
        self.until(lambda: any(text in found.text for found in self.all(selector)), f"{text!r} is to be in {selector}")

    def click(self, label: str) -> None:
        """Click the visible button with this label or text."""
        self.until(lambda: self._button(label), f"a button {label!r} is to be there").click()

    def _button(self, label: str) -> Any:
        # While a dialog is open, nothing outside can be clicked.
        for found in self.all("dialog[open] button" if self.all("dialog[open]") else "button"):
            if label in (found.get_attribute("aria-label"), found.text) and found.is_displayed():
                return found
        return None

    def names(self) -> list[str]:
        return [found.text for found in self.all("#known .name")]

    def lists(self, *names: str) -> None:
        self.until(lambda: self.names() == list(names), f"the people are to be {names}")

    def type(self, text: str) -> None:
        self.driver.switch_to.active_element.send_keys(text)

    def complaints(self) -> list[str]:
        """The errors in the browser's console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def colour(self) -> list[int]:
        """The colour of the live picture's first pixel."""
        script = """
            const picture = document.getElementById("picture"), canvas = document.createElement("canvas");
            canvas.width = canvas.height = 1;
            canvas.getContext("2d").drawImage(picture, 0, 0);
            return [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data];
        """
        return list(self.driver.execute_script(script))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser()
    yield found
    found.driver.quit()


@contextmanager
def watching(gallery: PretendedGallery, **options: Any) -> Iterator[LivePage]:
    """Serve a recognition of a stranger (track 1), of somebody with 3 frames (2), and of one who has gone (3)."""
    over = threading.Event()

    def run(page: LivePage) -> None:
        number = 0
        while not over.wait(0.05):
            page.show(update(number, {1: None}, early=[2], ended=[3] if number == 0 else []), picture(number))
            number += 1

    with LivePage(gallery, PretendedWatcher(), PretendedSource(), port=0, **options) as page:
        thread = threading.Thread(target=run, args=[page])
        thread.start()
        try:
            yield page
        finally:
            over.set()
            thread.join()


def test_a_walker_is_enrolled_and_removed_by_clicks(browser: Browser) -> None:
    gallery = PretendedGallery("Ann")
    with watching(gallery) as page:
        browser.open(page.address.url)
        browser.shows("#state", "live")
        browser.shows("#source", "door.mp4")
        browser.shows("#fps", "24.6")
        browser.until(lambda: browser.colour()[2] > 0, "a picture is to be there")
        first = browser.colour()
        browser.until(lambda: browser.colour() != first, "the picture is to change")
        browser.shows("#sighted .name", "Nobody known")
        browser.shows("#seen .name", "Not yet known")
        browser.click("Enrol the person of track 1")
        browser.type("Bea\n")
        browser.lists("Ann", "Bea")
        assert len(gallery.held["Bea"][0].silhouettes) == 30
        browser.shows("#told", "Bea is enrolled.")
        browser.click("Remove Bea")
        browser.shows("#remove", "deletes the recording of this person")
        browser.click("Cancel")
        assert "Bea" in gallery.held
        browser.click("Remove Bea")
        browser.click("Remove")
        browser.lists("Ann")
        assert "Bea" not in gallery.held
        assert browser.complaints() == []


def test_a_real_walker_gets_the_name_of_a_click(browser: Browser, tmp_path: Path, network: Network) -> None:
    """A rendered street, again and again: who passes is nobody, is enrolled, and has a name from then on."""
    video = write_video(tmp_path / "street.avi", [Walker(start=-40, speed=6)], frames=100)
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        watcher = Watcher(gallery, window=15, every=5, threshold=1e9)
        source = open_source(str(video), loop=True)

        def run(page: LivePage) -> None:
            for seen in watcher.updates(source):
                page.show(seen, draw(seen) if page.wants_pictures else None)

        with LivePage(gallery, watcher, source, port=0) as page:
            thread = threading.Thread(target=run, args=[page])
            thread.start()
            try:
                browser.open(page.address.url)
                browser.shows("#source", "street.avi")
                browser.shows("#sighted .name", "Nobody known")
                browser.all("#sighted button")[0].click()
                browser.type("Ann\n")
                browser.lists("Ann")
                browser.shows("#sighted .name", "Ann")
                assert gallery.recordings("Ann")[0].frames >= 5
                assert browser.complaints() == []
            finally:
                watcher.stop()
                thread.join()


def test_a_name_that_is_taken_gets_one_more_walk(browser: Browser) -> None:
    gallery = PretendedGallery("Ann")
    with watching(gallery) as page:
        browser.open(page.address.url)
        browser.click("Enrol the person of track 1")
        browser.type("Ann\n")
        browser.shows("#enroll .problem", "The gallery knows 'Ann' already")
        assert len(gallery.held["Ann"]) == 1
        browser.click("Add this walk")
        browser.shows("#known .detail", "2 recordings")
        assert len(gallery.held["Ann"]) == 2
        browser.click("Undo: One more walk of Ann is in the gallery.")
        browser.shows("#known .detail", "1 recording,")
        assert len(gallery.held["Ann"]) == 1


def test_walks_that_cannot_be_enrolled_are_said(browser: Browser) -> None:
    gallery = PretendedGallery()
    with watching(gallery) as page:
        browser.open(page.address.url)
        browser.shows("#none-known", "Nobody is enrolled yet.")
        for track, said in ((2, "A walk needs 5 frames, got 3."), (3, "Track 3 ended too long ago")):
            browser.click(f"Enrol the person of track {track}")
            browser.type("Dan\n")
            browser.shows("#enroll .problem", said)
            browser.click("Cancel")
        assert not gallery.held


def test_names_are_text(browser: Browser) -> None:
    gallery = PretendedGallery(HOSTILE)
    with LivePage(gallery, PretendedWatcher(), PretendedSource(), port=0) as page:
        page.show(update(0, {1: HOSTILE}))
        browser.open(page.address.url)
        browser.lists(HOSTILE)
        browser.shows("#seen .name", HOSTILE)
        browser.shows("#sighted .name", HOSTILE)
        browser.click(f"Remove {HOSTILE}")
        browser.shows("#remove-title", f"Remove {HOSTILE}?")
        browser.click("Remove")
        browser.shows("#told", HOSTILE)
        browser.lists()
        assert not browser.all("main b")
        assert browser.complaints() == []


def test_a_large_gallery_is_searched_by_name(browser: Browser) -> None:
    with GalleryPage(PretendedGallery(*(f"Person {i:03d}" for i in range(250))), port=0) as page:
        browser.open(page.address.url)
        browser.shows("#count", "250")
        browser.shows("#more", "50 more; find them by their names.")
        assert len(browser.names()) == 200
        browser.all("#filter")[0].send_keys("person 24")
        browser.lists(*(f"Person {i}" for i in range(240, 250)))
        assert not browser.text("#more")


def test_the_keyboard_is_enough(browser: Browser) -> None:
    gallery = PretendedGallery("Ann")
    with GalleryPage(gallery, port=0) as page:
        browser.open(page.address.url)
        browser.lists("Ann")
        for wanted in ("Skip to the people", "Rename"):
            browser.type("\ue004")  # Tab
            assert browser.driver.switch_to.active_element.text == wanted
        browser.type("\ue007")  # Enter
        browser.shows("#rename-title", "Rename Ann")
        browser.type("Bea\n")
        browser.lists("Bea")
        browser.type("\ue004")
        browser.driver.execute_script("document.querySelector('[aria-label=\"Remove Bea\"]').focus()")
        browser.type("\ue007")
        browser.shows("#remove-title", "Remove Bea?")
        browser.type("\ue00c")  # Escape
        browser.until(lambda: not browser.all("dialog[open]"), "the dialog is to close")
        assert list(gallery.held) == ["Bea"]
        assert browser.complaints() == []


def test_a_wrong_token_is_told(browser: Browser) -> None:
    with GalleryPage(PretendedGallery("Ann"), port=0, token="the-right-token") as page:
        browser.open(f"{page.address.url}?token=the-wrong-token")
        browser.shows("h1", "This page needs its token")
        browser.type("the-right-token\n")
        browser.lists("Ann")
        assert "token" not in browser.driver.current_url
        browser.driver.delete_all_cookies()
        browser.open(page.address.url_with_token)
        browser.lists("Ann")
        assert "token" not in browser.driver.current_url


def test_another_token_is_told_to_an_open_page(browser: Browser) -> None:
    with GalleryPage(PretendedGallery("Ann"), port=0, token="the-first-token") as page:
        browser.open(page.address.url_with_token)
        browser.lists("Ann")
    with GalleryPage(PretendedGallery("Ann"), port=page.address.port, token="the-other-token"):
        browser.shows("#notice", "This page needs the token")


def test_a_gallery_that_is_away_is_said_until_it_is_back(browser: Browser) -> None:
    gallery = PretendedGallery("Ann")
    with watching(gallery) as page:
        browser.open(page.address.url)
        browser.lists("Ann")
        gallery.failure = OSError("the database does not answer")
        browser.shows("#notice", "The gallery cannot be read: the database does not answer.")
        browser.click("Remove Ann")
        browser.click("Remove")
        browser.shows("#remove .problem", "The database does not answer.")
        browser.click("Cancel")
        first = browser.colour()
        browser.until(lambda: browser.colour() != first, "the picture is to go on")
        gallery.failure = None
        browser.until(lambda: not browser.text("#notice"), "the notice is to go")
        browser.click("Remove Ann")
        browser.click("Remove")
        browser.lists()


def test_the_end_is_said_and_a_new_beginning_found(browser: Browser) -> None:
    gallery = PretendedGallery("Ann")
    with watching(gallery) as page:
        browser.open(page.address.url)
        browser.shows("#state", "live")
        page.end("door.mp4 has ended")
        browser.shows("#no-picture", "door.mp4 has ended")
        browser.shows("#state", "ended")
    browser.shows("#notice", "door.mp4 has ended. This page goes on when it runs again.")
    browser.shows("#no-picture", "No connection")
    assert browser.colour()[2] > 0
    with GalleryPage(PretendedGallery("Bea"), port=page.address.port):
        browser.lists("Bea")
        browser.until(lambda: not browser.text("#notice"), "the notice is to go")


def test_two_browsers_show_the_same(browser: Browser) -> None:
    gallery, other = PretendedGallery("Ann"), Browser()
    try:
        with watching(gallery) as page:
            for each in (browser, other):
                each.open(page.address.url)
                each.lists("Ann")
            other.click("Enrol the person of track 1")
            other.type("Bea\n")
            browser.lists("Ann", "Bea")
            browser.click("Remove Ann")
            other.click("Remove Ann")
            browser.click("Remove")
            other.lists("Bea")
            other.click("Remove")
            other.shows("#remove .problem", "Nobody is called 'Ann'")
            for each in (browser, other):
                assert each.colour()[2] > 0
    finally:
        other.driver.quit()


def test_a_phone_shows_everything(browser: Browser) -> None:
    with watching(PretendedGallery("Ann", LONG, "x" * 200)) as page:
        browser.open(page.address.url, width=360, height=740)
        browser.shows("#known .name", LONG)
        browser.shows("#seen .name", "Nobody known")
        wide, shown = browser.driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide <= shown == 360
        small = [found.text for found in browser.all("button") if found.is_displayed() and found.size["height"] < 44]
        assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser: Browser, scheme: str) -> None:
    """Every text has a contrast of 4.5 to what is behind it, as WCAG 2 asks for."""
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    try:
        with watching(PretendedGallery("Ann")) as page:
            browser.open(page.address.url)
            browser.shows("#seen .name", "Not yet known")
            browser.lists("Ann")
            browser.click("Remove Ann")
            poor = browser.driver.execute_script(CONTRASTS)
        assert len(poor["texts"]) > 20
        assert poor["below"] == []
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


CONTRASTS = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const linear = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = channels(getComputedStyle(node).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const texts = [], below = [];
for (const node of document.querySelectorAll("h1, h2, p, dt, dd, button, label, #count")) {
  if (!node.checkVisibility() || !node.textContent.trim() || node.closest("figure")) continue;
  const [a, b] = [light(channels(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
  texts.push(node.textContent);
  if ((a + 0.05) / (b + 0.05) < 4.5) below.push([node.textContent, (a + 0.05) / (b + 0.05)]);
}
return { texts, below };
"""
