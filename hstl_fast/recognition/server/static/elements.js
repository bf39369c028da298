// Elements, dialogs and requests that the whole page uses. Text from outside is set as text, never as HTML.

export const $ = (id) => document.getElementById(id);

export function element(kind, className, text) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function button(text, label, act) {
  const made = element("button", "", text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

export function setText(node, text) {
  // A node that is set to what it holds would lose a selection, and be read aloud again.
  if (node.textContent !== text) node.textContent = text;
}

// Lets a list show items in order. Elements are kept by key, so that the focus stays where it is.
export function showItems(list, items, key, make, update) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let place = list.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = name;
    }
    old.delete(name);
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else list.insertBefore(child, place);
  }
  for (const child of old.values()) child.remove();
}

export class RequestError extends Error {
  constructor(status, content) {
    super(content.error || `the answer was ${status}`);
    this.status = status;
    this.taken = content.taken === true;
  }
}

export async function request(path, body) {
  const change = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, body === undefined ? {} : change);
  } catch {
    throw new RequestError(0, { error: "hstl-fast does not answer" });
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new RequestError(answer.status, content);
  return content;
}

// Tells what was done, for some seconds, with a button to undo it where there is a way.
let timer;
export function tell(text, undo) {
  const told = $("told");
  told.replaceChildren(element("span", "", text));
  if (undo) told.append(button("Undo", `Undo: ${text}`, undo));
  clearTimeout(timer);
  timer = setTimeout(() => told.replaceChildren(), undo ? 20000 : 6000);
}

// Prepares a dialog: `act` runs on its main button, and the dialog stays open with the sentence of an error.
export function prepareDialog(dialog, act) {
  const form = dialog.querySelector("form");
  const main = form.querySelector("[type=submit]");
  dialog.querySelector(".cancel").addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (main.disabled) return;
    main.disabled = true;
    showProblem(dialog, "");
    try {
      await act();
      dialog.close();
    } catch (error) {
      showProblem(dialog, error.message);
      dialog.dispatchEvent(new CustomEvent("refused", { detail: error }));
    } finally {
      main.disabled = false;
    }
  });
}

export function openDialog(dialog) {
  showProblem(dialog, "");
  dialog.showModal();
}

function showProblem(dialog, text) {
  const problem = dialog.querySelector(".problem");
  problem.textContent = text && sentence(text);
  problem.hidden = !text;
}

export function sentence(text) {
  return text[0].toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");
}

export function counted(number, one, many) {
  return `${number.toLocaleString()} ${number === 1 ? one : many}`;
}
