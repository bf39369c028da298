// Connects the page: events come in, and where they stop, the page says so and tries again.

import { $, request, sentence, setText } from "./elements.js";
import { forgetSightings, prepareLive, showLost, showPicture, showSightings, showStatus } from "./live.js";
import { loadPeople, preparePeople } from "./people.js";

// Seconds until the page asks again where nothing answers.
const AGAIN = 2;
let events = null;
let retry;
let known;
let goodbye = null;
let pictured = false;

function connect() {
  clearTimeout(retry);
  if (events !== null || document.hidden) return;
  events = new EventSource("/api/events");
  events.addEventListener("open", () => {
    goodbye = null;
    known = undefined;
    pictured = false;
    forgetSightings();
    showLost(false);
  });
  events.addEventListener("status", (event) => take(JSON.parse(event.data)));
  events.addEventListener("sightings", (event) => showSightings(JSON.parse(event.data)));
  events.addEventListener("closed", (event) => {
    goodbye = JSON.parse(event.data).reason ?? "hstl-fast was ended";
    lose();
  });
  events.addEventListener("error", lose);
}

function disconnect() {
  clearTimeout(retry);
  if (events !== null) events.close();
  events = null;
}

async function lose() {
  disconnect();
  const problem = await request("/api/status").then(() => null, (error) => error);
  if (problem !== null) {
    const why = goodbye ?? "hstl-fast does not answer";
    say(problem.status ? sentence(problem.message) : `${why}. This page goes on when it runs again.`);
    showLost(true);
    mark(goodbye === null ? "no connection" : "ended", "bad");
  }
  clearTimeout(retry);
  retry = setTimeout(connect, AGAIN * 1000);
}

function take(status) {
  document.body.classList.toggle("gallery", !status.live);
  $("live").hidden = $("sightings").hidden = !status.live;
  setText($("source"), status.live ? status.source ?? "" : "gallery");
  if (status.live) {
    showStatus(status);
    if (!pictured) showPicture(true);
    pictured = true;
  }
  const { error } = status.gallery;
  say(error === null ? "" : `The gallery cannot be read: ${error}. The page tries again.`);
  if (status.live && status.ended) mark("ended", "bad");
  else if (error !== null) mark("gallery away", "bad");
  else if (status.live && (status.frame === null || status.age > 3)) mark("waiting", "");
  else mark(status.live ? "live" : "connected", "good");
  if (error === null && status.gallery.state !== known) reload(status.gallery.state);
}

async function reload(newest) {
  const before = known;
  known = newest;
  try {
    await loadPeople();
  } catch {
    // The next status says why, and this state is asked for again.
    known = before;
  }
}

function say(text) {
  setText($("notice"), text);
  $("notice").hidden = !text;
}

function mark(text, kind) {
  setText($("state"), text);
  $("state").className = `pill ${kind}`;
}

document.addEventListener("visibilitychange", () => {
  // A browser has few connections to one machine, which other tabs of the page need.
  if (document.hidden) {
    disconnect();
    showPicture(false);
  } else {
    connect();
  }
});
preparePeople();
prepareLive();
connect();
