// The live picture, the people in view and the sightings.

import { $, button, counted, element, setText, showItems } from "./elements.js";
import { askEnroll } from "./people.js";

// The page lists so many tracks, the last seen first.
const MOST = 100;
// A picture that is older, in seconds, is said to be.
const OLD = 3;
const sightings = new Map();
let pictures = 0;
let retry;

export function showPicture(wanted) {
  clearTimeout(retry);
  if (wanted) {
    pictures += 1;
    $("picture").src = `/live.mjpeg?${pictures}`;
  } else {
    $("picture").removeAttribute("src");
    document.querySelector("figure").classList.add("waiting");
  }
}

export function prepareLive() {
  $("picture").addEventListener("error", () => {
    document.querySelector("figure").classList.add("waiting");
    if (!lost) retry = setTimeout(() => showPicture(true), 2000);
  });
}

// Says that nothing new comes; the last picture stays.
let lost = false;
export function showLost(isLost) {
  lost = isLost;
  document.body.classList.toggle("lost", lost);
  if (!lost) return;
  clearTimeout(retry);
  setText($("no-picture"), "No connection");
  $("no-picture").hidden = false;
}

export function showStatus(status) {
  const started = status.frame !== null && $("picture").naturalWidth > 0;
  document.querySelector("figure").classList.toggle("waiting", !started);
  const old = started && !status.ended && status.age > OLD;
  const why = old ? `No new picture for ${Math.round(status.age)} s` : "Waiting for the first picture";
  setText($("no-picture"), status.ended ?? why);
  $("no-picture").hidden = started && !old && !status.ended;
  setText($("fps"), status.fps === null ? "–" : `${status.fps.toFixed(1)} a second`);
  setText($("delay"), status.delay === null ? "–" : duration(status.delay));
  setText($("dropped"), status.dropped.toLocaleString());
  setText($("reconnections"), status.reconnections.toLocaleString());
  $("none-seen").hidden = status.seen.length > 0;
  showItems($("seen"), status.seen, (seen) => seen.track, makeTrack, updateSeen);
}

export function showSightings(changed) {
  for (const sighting of changed) {
    sightings.delete(sighting.track);
    sightings.set(sighting.track, sighting);
  }
  for (const track of sightings.keys()) {
    if (sightings.size <= MOST) break;
    sightings.delete(track);
  }
  $("none-sighted").hidden = sightings.size > 0;
  showItems($("sighted"), [...sightings.values()].reverse(), (one) => one.track, makeTrack, updateSighting);
}

export function forgetSightings() {
  sightings.clear();
  showSightings([]);
}

function makeTrack({ track }) {
  const made = element("li");
  const portrait = element("img", "portrait");
  portrait.alt = "";
  const about = element("div", "about");
  about.append(element("p", "name"), element("p", "detail"));
  const actions = element("div", "actions");
  actions.append(button("Enrol", `Enrol the person of track ${track}`, () => askEnroll(track)));
  made.append(portrait, about, actions);
  return made;
}

function updateTrack(made, one, name, detail, kind) {
  made.className = kind;
  setText(made.querySelector(".name"), name);
  setText(made.querySelector(".detail"), detail);
  const portrait = made.querySelector(".portrait");
  const path = `/api/portraits/${one.track}.jpeg?${one.portrait}`;
  if (one.portrait !== null && portrait.getAttribute("src") !== path) portrait.src = path;
}

function updateSeen(made, seen) {
  const parts = [`track ${seen.track}`, counted(seen.frames, "frame", "frames")];
  if (!seen.answered) {
    updateTrack(made, seen, "Not yet known", parts.join(", "), "early");
    return;
  }
  if (seen.distance !== null) {
    const limit = seen.threshold === null ? "" : `, threshold ${seen.threshold.toFixed(2)}`;
    const nearest = seen.name === null ? `nearest ${seen.nearest} at` : "distance";
    parts.push(`${nearest} ${seen.distance.toFixed(2)}${limit}`);
  }
  const kind = seen.name === null ? "unknown" : "known";
  updateTrack(made, seen, seen.name ?? "Nobody known", parts.join(", "), kind);
}

function updateSighting(made, sighting) {
  const clock = (time) => new Date(time).toLocaleTimeString();
  const until = sighting.ended ? clock(sighting.last) : "now";
  const parts = [`${clock(sighting.first)} to ${until}`, `track ${sighting.track}`];
  parts.push(counted(sighting.frames, "frame", "frames"));
  if (sighting.distance !== null) parts.push(`distance ${sighting.distance.toFixed(2)}`);
  const kind = sighting.name === null ? "unknown" : "known";
  updateTrack(made, sighting, sighting.name ?? "Nobody known", parts.join(", "), kind);
}

function duration(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}
