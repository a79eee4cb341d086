// One polite poller for everything on the page that waits for the worker.
import { whenSignedIn } from "./session.js";

const STEPS = [500, 1000, 2000, 3000];
const HIDDEN = 60_000;
const AT_ONCE = 40;
const queuePlace = document.querySelector("[data-queue-place]");
const cardsUrl = document.querySelector("[data-cards-url]")?.dataset.cardsUrl ?? document.querySelector("ul[data-cards]")?.dataset.url;
let step = 0;
let timer = null;
let busy = false;
let lineShownAt = 0;

export function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

// Something new waits: look soon.
export function watch() {
  step = 0;
  schedule();
}

// Fetches a fragment; null when it can't be had now. Signed out: asks, and looks again afterwards.
export async function fragment(url) {
  const answer = await fetch(url, { headers: { "X-Fragment": "1" }, cache: "no-store" });
  if (answer.status === 401) {
    whenSignedIn(watch);
    throw new Error("signed out");
  }
  if (!answer.ok) throw new Error(`answer ${answer.status}`);
  return parse(await answer.text());
}

function waiting() {
  return [...document.querySelectorAll("[data-waiting]")];
}

function schedule() {
  clearTimeout(timer);
  timer = null;
  if (!waiting().length || !cardsUrl) return;
  timer = setTimeout(poll, document.hidden ? HIDDEN : STEPS[Math.min(step, STEPS.length - 1)]);
}

async function poll() {
  if (busy) return;
  busy = true;
  try {
    const oldest = waiting().sort((one, other) => one.dataset.waiting - other.dataset.waiting);
    const ids = [...new Set(oldest.map((each) => each.dataset.image))].slice(0, AT_ONCE);
    const cards = await fragment(`${cardsUrl}?${ids.map((id) => `id=${id}`).join("&")}`);
    const changed = await show(ids, cards);
    step = changed ? 0 : step + 1;
    await showQueue();
  } catch (error) {
    step = STEPS.length;
    if (error.message === "signed out") return;
    showTrouble();
  } finally {
    busy = false;
  }
  schedule();
}

async function show(ids, cards) {
  let changed = false;
  for (const id of ids) {
    const fresh = cards.querySelector(`[data-image="${id}"]`);
    for (const old of document.querySelectorAll(`[data-image="${id}"]`)) {
      if (!fresh) {
        // Not visible any more: nothing to wait for.
        delete old.dataset.waiting;
      } else if ("panel" in old.dataset) {
        if (old.dataset.status !== fresh.dataset.status) await showPanel(old);
        else old.querySelector(".verdict-class").textContent = fresh.querySelector(".state").textContent;
      } else {
        changed ||= old.dataset.status !== fresh.dataset.status;
        replace(old, fresh.cloneNode(true));
      }
    }
  }
  return changed;
}

async function showPanel(old) {
  const panel = (await fragment(old.dataset.url)).firstElementChild;
  replace(old, panel);
  if (!("waiting" in panel.dataset)) {
    const verdict = panel.querySelector(".verdict-class")?.textContent.trim() ?? "";
    const confidence = panel.querySelector(".confidence .num")?.textContent ?? "";
    document.dispatchEvent(new CustomEvent("announce", { detail: `${verdict} ${confidence}` }));
  }
}

// The picture that is already there stays: it is loaded, and the server lets nobody cache it. It must never enter the
// document of the fragment, or it would be loaded again; nor must its double enter ours.
function replace(old, fresh) {
  const picture = old.querySelector("img");
  const focused = old.contains(document.activeElement) && document.activeElement;
  const place = document.createElement("span");
  if (picture) fresh.querySelector("img")?.replaceWith(place);
  document.adoptNode(fresh);
  if (place.parentNode) place.replaceWith(picture);
  old.replaceWith(fresh);
  if (focused) fresh.querySelector(focused.matches("[data-stage]") ? "[data-stage]" : "a[href]")?.focus();
}

async function showQueue() {
  if (!queuePlace || (Date.now() - lineShownAt < STEPS.at(-1) && waiting().length)) return;
  lineShownAt = Date.now();
  const line = await fragment(queuePlace.dataset.url);
  const obstacle = line.querySelector("[data-obstacle]");
  const known = queuePlace.querySelector("[data-obstacle]");
  if (obstacle && obstacle.dataset.obstacle !== known?.dataset.obstacle) {
    document.dispatchEvent(new CustomEvent("announce", { detail: obstacle.textContent }));
  }
  queuePlace.replaceChildren(line);
}

function showTrouble() {
  if (!queuePlace) return;
  lineShownAt = 0;
  queuePlace.replaceChildren(
    parse('<p class="queue"><span class="obstacle" data-obstacle="unreachable">The server can\'t be reached. What was uploaded is safe; this page tries again every few seconds.</span></p>'),
  );
}

document.addEventListener("visibilitychange", watch);
watch();
