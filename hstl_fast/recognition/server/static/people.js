// The gallery's people: listed, renamed and removed, and people in view enrolled.

import { $, button, counted, element, openDialog, prepareDialog, request, setText, showItems, tell } from "./elements.js";

// A list that is longer gets a field to find a person.
const FEW = 8;
// So many people are listed, and offered as names, at a time.
const MOST = 200;
let people = [];
let chosen = null;

export async function loadPeople() {
  ({ people } = await request("/api/people"));
  showPeople();
}

function showPeople() {
  const wanted = $("filter").value.trim().toLowerCase();
  const shown = people.filter((person) => person.name.toLowerCase().includes(wanted));
  $("filter").hidden = people.length <= FEW && !wanted;
  setText($("count"), people.length ? people.length.toLocaleString() : "");
  $("none-known").hidden = shown.length > 0;
  setText($("none-known"), people.length ? "Nobody has such a name." : "Nobody is enrolled yet.");
  $("more").hidden = shown.length <= MOST;
  setText($("more"), `${(shown.length - MOST).toLocaleString()} more; find them by their names.`);
  showItems($("known"), shown.slice(0, MOST), (person) => person.name, makePerson, updatePerson);
  showItems($("names"), people.slice(0, MOST), (person) => person.name, makeChoice, () => {});
}

function makeChoice(person) {
  const made = element("option");
  made.value = person.name;
  return made;
}

function makePerson(person) {
  const { name } = person;
  const made = element("li");
  const about = element("div", "about");
  about.append(element("p", "name", name), element("p", "detail"));
  const actions = element("div", "actions");
  actions.append(
    button("Rename", `Rename ${name}`, () => askRename(name)),
    button("Remove", `Remove ${name}`, () => askRemove(name)),
  );
  made.append(about, actions);
  return made;
}

function updatePerson(made, person) {
  const day = new Date(person.created).toLocaleDateString(undefined, { dateStyle: "medium" });
  setText(made.querySelector(".detail"), `${counted(person.recordings, "recording", "recordings")}, enrolled ${day}`);
}

function askRename(name) {
  chosen = name;
  setText($("rename-title"), `Rename ${name}`);
  $("rename-name").value = name;
  openDialog($("rename"));
  $("rename-name").select();
}

function askRemove(name) {
  chosen = name;
  const { recordings } = people.find((person) => person.name === name) ?? { recordings: 0 };
  setText($("remove-title"), `Remove ${name}?`);
  const all = recordings === 1 ? "the recording" : `all ${recordings} recordings`;
  setText($("remove-what"), `This deletes ${all} of this person from the gallery, and cannot be undone.`);
  openDialog($("remove"));
}

export function askEnroll(track) {
  chosen = track;
  setText($("enroll-title"), `Enrol the person of track ${track}`);
  $("enroll-name").value = "";
  offerToAdd(null);
  $("enroll-portrait").src = `/api/portraits/${track}.jpeg?${Date.now()}`;
  openDialog($("enroll"));
  $("enroll-name").focus();
}

let taken = null;
function offerToAdd(name) {
  taken = name;
  setText($("enroll").querySelector("[type=submit]"), name === null ? "Enrol" : "Add this walk");
}

async function enroll() {
  const name = $("enroll-name").value.trim();
  const add = taken !== null && name === taken;
  const { recordings } = await request("/api/enroll", { track: chosen, name, add });
  const undo = () => undoEnroll(name, recordings[0].id);
  tell(add ? `One more walk of ${name} is in the gallery.` : `${name} is enrolled.`, undo);
  await loadPeople();
}

async function undoEnroll(name, recording) {
  try {
    await request("/api/recordings/remove", { recording });
    tell(`The new walk of ${name} is removed.`);
    await loadPeople();
  } catch (error) {
    tell(`It could not be undone: ${error.message}.`);
  }
}

async function rename() {
  const name = $("rename-name").value.trim();
  if (name !== chosen) await request("/api/people/rename", { old: chosen, new: name });
  tell(`${chosen} is now called ${name}.`);
  await loadPeople();
}

async function remove() {
  const { removed } = await request("/api/people/remove", { name: chosen });
  tell(`${chosen} is removed, with ${counted(removed, "recording", "recordings")}.`);
  await loadPeople();
  // The button that had the focus is gone.
  $("people-title").focus();
}

export function preparePeople() {
  prepareDialog($("enroll"), enroll);
  prepareDialog($("rename"), rename);
  prepareDialog($("remove"), remove);
  $("enroll").addEventListener("refused", (event) => {
    if (event.detail.taken) offerToAdd($("enroll-name").value.trim());
  });
  $("enroll-name").addEventListener("input", () => offerToAdd(null));
  $("filter").addEventListener("input", showPeople);
}
