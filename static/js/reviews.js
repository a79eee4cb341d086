// Reviews on their way. Each is kept in this browser until the server has it, and goes out in the order of its image;
// a lost network, a sign-out or a reload loses none. Kept are ids, verdicts and cell types only; a comment stays in the page.
import { fragment } from "./polling.js";
import { csrfToken, whenSignedIn } from "./session.js";

const { user } = document.body.dataset;
const PREFIX = "review:";
const BACK_OFF = [1, 2, 4, 8, 15, 30];
const AT_ONCE = 4;
const LINKS_AT_ONCE = 10;
// What makes a person decide again, and what it is called to leave things as they are.
const QUESTIONS = {
  review_changed: "Somebody else reviewed this image before yours was stored. Look at it and decide again.",
  prediction_changed: "The model's result changed before your review was stored. Look at it and decide again.",
};
const LEAVING = { review_changed: "Keep the other's", prediction_changed: "Leave it open" };
const lanes = new Map(); // image id -> its entries, the oldest first
const busy = new Set();
const main = document.querySelector("main");
let paused = false;
let failures = 0;
let retry = null;
let counter = 0;

// --- what is kept ----------------------------------------------------------------------------------------------
const memory = new Map();
const kept = (() => {
  try {
    localStorage.setItem(`${PREFIX}probe`, "");
    localStorage.removeItem(`${PREFIX}probe`);
    return localStorage;
  } catch {
    return null; // storage is forbidden: what is on its way lasts as long as the page
  }
})();

function keep({ key, ...rest }) {
  forget(key);
  try {
    if (!kept || rest.said.comment) memory.set(key, rest);
    else kept.setItem(key, JSON.stringify(rest));
  } catch {
    memory.set(key, rest);
  }
}

function read(key) {
  return memory.get(key) ?? JSON.parse(kept?.getItem(key) ?? "null");
}

function forget(key) {
  memory.delete(key);
  kept?.removeItem(key);
}

function keysInStorage() {
  return kept ? Object.keys(kept).filter((key) => key.startsWith(PREFIX)) : [];
}

function newKey() {
  counter += 1;
  const chance = Math.random().toString(36).slice(2, 8);
  return `${PREFIX}${user}:${Date.now().toString(36).padStart(9, "0")}-${String(counter).padStart(5, "0")}-${chance}`;
}

// --- what others may do ----------------------------------------------------------------------------------------

// `said` is {final_label} or {verdict}; `previous` the id of the review that counts as far as the page knows ("": none).
export function say({ image, page, previous }, said) {
  const lane = lanes.get(image) ?? [];
  if (lane[0]?.conflict) {
    lane[0].said = said;
    keep(lane[0]);
    ask(lane[0]);
    return;
  }
  // After another one of ours, the one that counts is the one that will come of it.
  const entry = { key: newKey(), image, page, said, previous: lane.length ? null : previous };
  lanes.set(image, [...lane, entry]);
  keep(entry);
  tell(image, "sending");
  pump();
}

export const isPending = (image) => lanes.has(image);

// Ends a conflict: with ours, on top of what the reader has seen by now; or without.
export function settle(image, { insist, previous }) {
  const [entry] = lanes.get(image) ?? [];
  if (!entry?.conflict) return;
  if (!insist) {
    drop(image);
    tell(image, "settled");
    showStatus();
    return;
  }
  delete entry.conflict;
  // The class alone: whether it confirms or corrects depends on what the model says by now.
  if (entry.said.final_label) delete entry.said.verdict;
  entry.previous = previous;
  keep(entry);
  tell(image, "sending");
  pump();
}

export function retryNow() {
  clearTimeout(retry);
  retry = null;
  pump();
}

// What became of it: sending, waiting, stored, conflict, refused or settled.
function tell(image, state, about = {}) {
  document.dispatchEvent(new CustomEvent("review", { detail: { image, state, ...about } }));
  if (state === "refused" && !isShown(image)) showRefused(image, about);
}

function ask({ image, conflict, said }, answer = {}) {
  const why = answer.message ?? QUESTIONS[conflict] ?? QUESTIONS.review_changed;
  const message = `${why} Yours: ${wordsFor(said)}.`;
  tell(image, "conflict", { answer, message, leave: LEAVING[conflict] ?? LEAVING.review_changed });
}

function wordsFor({ verdict, final_label: label }) {
  const words = (label || verdict).toLowerCase().replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

function drop(image) {
  for (const each of lanes.get(image)) forget(each.key);
  lanes.delete(image);
}

// --- sending ---------------------------------------------------------------------------------------------------
function pump() {
  showStatus();
  if (paused || retry) return;
  for (const [image, [entry]] of lanes) {
    if (busy.size >= AT_ONCE) return;
    if (!busy.has(image) && !entry.conflict) send(image, entry);
  }
}

async function send(image, entry) {
  busy.add(image);
  try {
    // Another tab of the same person may be at it: one of us at a time, and only while it is still to be sent.
    const answer = await alone(image, () => {
      const now = read(entry.key);
      return now && post(now);
    });
    await take(image, entry, answer);
  } catch {
    hold(image);
  } finally {
    busy.delete(image);
  }
  pump();
}

function alone(image, act) {
  // Locks exist in secure contexts only; a laboratory's own network may be plain http.
  return navigator.locks ? navigator.locks.request(`${PREFIX}${image}`, act) : act();
}

async function post(entry) {
  const body = new URLSearchParams({ ...entry.said, previous_review: entry.previous ?? "", reader: user });
  const headers = { "X-Fragment": "1", "X-CSRFToken": csrfToken() };
  const answer = await fetch(`${entry.page}reviews/`, { method: "POST", headers, body, signal: AbortSignal.timeout(20_000) });
  const isJson = answer.headers.get("Content-Type")?.includes("json");
  return { status: answer.status, body: isJson ? await answer.json() : null };
}

async function take(image, entry, answer) {
  if (answer === null) {
    next(image, entry, undefined);
    tell(image, "settled");
  } else if (answer.status === 401 || answer.body?.code === "another_reader") {
    signedOut(image);
  } else if (answer.status === 200) {
    failures = 0;
    next(image, entry, answer.body.review ?? "");
    tell(image, "stored", { answer: answer.body, said: entry.said, isLast: !lanes.has(image) });
  } else if (answer.body?.code in QUESTIONS) {
    conflict(image, answer.body);
  } else if (answer.status === 404 || (answer.body && answer.status < 500 && answer.status !== 429)) {
    const message = answer.body?.message ?? "This image can't be found any more.";
    drop(image);
    tell(image, "refused", { answer: answer.body, message, page: answer.status === 404 ? null : entry.page });
  } else {
    throw new Error(`answer ${answer.status}`);
  }
}

// The one after it is about the review that came of it.
function next(image, entry, counts) {
  forget(entry.key);
  const rest = lanes.get(image).slice(1);
  if (!rest.length) {
    lanes.delete(image);
    return;
  }
  if (counts !== undefined) {
    rest[0].previous = counts;
    keep(rest[0]);
  }
  lanes.set(image, rest);
}

// Of several, the last is what the reader wants; where that is to take the own review back, nothing is left.
function conflict(image, answer) {
  const last = lanes.get(image).at(-1);
  drop(image);
  if (last.said.verdict === "WITHDRAWN") {
    tell(image, "refused", { answer, message: answer.message, page: last.page });
    return;
  }
  last.conflict = answer.code;
  last.previous = "";
  keep(last);
  lanes.set(image, [last]);
  ask(last, answer);
}

function signedOut(image) {
  paused = true;
  tell(image, "waiting");
  whenSignedIn(() => {
    paused = false;
    pump();
  });
}

function hold(image) {
  const seconds = BACK_OFF[Math.min(failures, BACK_OFF.length - 1)];
  failures += 1;
  // One that always fails lets the others go first.
  const lane = lanes.get(image);
  lanes.delete(image);
  lanes.set(image, lane);
  tell(image, "waiting");
  clearTimeout(retry);
  retry = setTimeout(retryNow, seconds * 1000);
}

// --- what is said about it -------------------------------------------------------------------------------------
function notice(name) {
  let place = main.querySelector(`[data-review-notice="${name}"]`);
  if (!place) {
    place = document.createElement("div");
    place.className = "notice review-notice";
    place.dataset.reviewNotice = name;
    place.setAttribute("role", "status");
    place.innerHTML = `<p></p><button type="button"></button>`;
    main.prepend(place);
  }
  return place;
}

function plural(count) {
  return count === 1 ? "1 review" : `${count} reviews`;
}

// A tile or a panel of the page says itself what became of its image's review.
function isShown(image) {
  return document.querySelector(`.tile > a[data-image="${image}"], [data-panel][data-image="${image}"]`) !== null;
}

function linkTo(page, words) {
  const link = document.createElement("a");
  link.href = page;
  link.textContent = words;
  return link;
}

function showRefused(image, { message, page }) {
  const place = notice(`refused-${image}`);
  const [line, button] = place.children;
  line.replaceChildren(`A review was not stored. ${message} `, page ? linkTo(page, "Open the image") : "");
  button.textContent = "Close";
  button.onclick = () => place.remove();
}

// Questions that nothing on this page can ask.
function showConflicts() {
  const open = [...lanes.values()].map(([entry]) => entry).filter((entry) => entry.conflict && !isShown(entry.image));
  if (!open.length) {
    main.querySelector('[data-review-notice="conflicts"]')?.remove();
    return;
  }
  const place = notice("conflicts");
  const now = open.map((entry) => entry.image).join();
  if (place.dataset.images === now) return;
  place.dataset.images = now;
  const [line, button] = place.children;
  button.hidden = true;
  line.replaceChildren(`${plural(open.length)} ${open.length === 1 ? "wants" : "want"} your decision:`);
  open.slice(0, LINKS_AT_ONCE).forEach(({ page }, index) => line.append(" ", linkTo(page, `Image ${index + 1}`)));
  if (open.length > LINKS_AT_ONCE) line.append(` and ${open.length - LINKS_AT_ONCE} more`);
}

function showStatus() {
  showConflicts();
  const waiting = [...lanes.values()].flat().filter((entry) => !entry.conflict).length;
  const trouble = waiting && (retry || paused);
  if (!trouble) {
    main.querySelector('[data-review-notice="unsent"]')?.remove();
    return;
  }
  const place = notice("unsent");
  const why = paused ? "Sign in again to send them." : "The server can't be reached; this page tries again by itself.";
  const sentence = `${plural(waiting)} not stored yet, kept in this browser. ${why}`;
  const [line, button] = place.children;
  if (line.textContent !== sentence) line.textContent = sentence;
  button.textContent = "Try now";
  button.hidden = paused;
  button.onclick = retryNow;
}

// What somebody else left in this browser goes out when that person signs in here, or is thrown away.
function showOthers() {
  const others = keysInStorage().filter((key) => !key.startsWith(`${PREFIX}${user}:`));
  if (!others.length || !user) return;
  const place = notice("others");
  const [line, button] = place.children;
  line.textContent = `${plural(others.length)} of another person not stored yet, kept in this browser. They go out when that person signs in here again.`;
  button.textContent = "Discard";
  button.onclick = () =>
    askTwice(`Discard ${plural(others.length)} of another person?`, "They were never stored, and nobody can bring them back.", () => {
      others.forEach(forget);
      place.remove();
    });
}

function askTwice(question, warning, act) {
  const dialog = document.createElement("dialog");
  dialog.className = "sheet";
  dialog.setAttribute("aria-labelledby", "ask-twice");
  dialog.innerHTML = `<h2 id="ask-twice"></h2><p></p><form method="dialog" class="review-acts">
    <button type="submit" value="" autofocus>Keep them</button><button type="submit" value="discard">Discard</button></form>`;
  dialog.querySelector("h2").textContent = question;
  dialog.querySelector("p").textContent = warning;
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (dialog.returnValue === "discard") act();
  });
  main.append(dialog);
  dialog.showModal();
}

// --- the forms of the panel ------------------------------------------------------------------------------------
document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-review-form]");
  const panel = form?.closest("[data-panel]");
  if (!panel || !event.submitter?.name) return;
  event.preventDefault();
  const said = { [event.submitter.name]: event.submitter.value };
  if (said.verdict === "CONFIRMED") said.final_label = form.elements.seen_label.value;
  const comment = form.elements.comment?.value.trim();
  if (comment) said.comment = comment;
  const image = panel.dataset.image ?? panel.dataset.shows;
  const asked = new CustomEvent("say", { bubbles: true, cancelable: true, detail: { image, said } });
  // The gallery, where there is one, has more to do.
  if (!panel.dispatchEvent(asked)) return;
  say({ image, page: panel.dataset.url, previous: form.elements.previous_review.value }, said);
});

document.addEventListener("review", async (event) => {
  const { image, state, message, said, leave } = event.detail;
  const panel = document.querySelector(`[data-panel][data-image="${image}"]`);
  if (!panel) return;
  panel.toggleAttribute("data-sending", state === "sending" || state === "waiting");
  if (state === "sending" || state === "waiting") return;
  try {
    const fresh = (await fragment(panel.dataset.url)).firstElementChild;
    const typed = panel.querySelector("[name=comment]")?.value.trim();
    panel.replaceWith(fresh);
    // What was typed and not stored stays where it was typed.
    if (typed && !(state === "stored" && typed === said.comment)) retype(fresh, typed);
    if (message) showConflict(fresh, image, message, leave);
    const says = fresh.querySelector("[data-counts] .verdict-class")?.textContent.trim();
    document.dispatchEvent(new CustomEvent("announce", { detail: message ?? (says ? `Stored: ${says}` : "Undone") }));
    fresh.querySelector("[data-review-form] button")?.focus({ preventScroll: true });
    const card = document.querySelector(`.card[data-image="${image}"]`);
    const cards = card?.closest("[data-cards][data-url]");
    if (cards) card.replaceWith((await fragment(`${cards.dataset.url}?id=${image}`)).querySelector(".card"));
  } catch {
    panel.removeAttribute("data-sending"); // the next load of the page shows it
  }
});

function retype(panel, comment) {
  const field = panel.querySelector("[name=comment]");
  if (!field) return;
  field.value = comment;
  field.closest("details").open = true;
}

// `leave` are the words for leaving things as they are, where there is something to decide.
function showConflict(panel, image, message, leave) {
  const place = document.createElement("div");
  place.className = "message message-warning";
  place.setAttribute("role", "alert");
  const line = document.createElement("p");
  line.textContent = message;
  place.append(line);
  if (leave) {
    const previous = panel.querySelector("[name=previous_review]")?.value ?? "";
    for (const [insist, words] of [[false, leave], [true, "Use mine"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = words;
      button.addEventListener("click", () => {
        place.remove();
        settle(image, { insist, previous });
      });
      place.append(button, " ");
    }
  }
  panel.querySelector(".verdict").prepend(place);
}

// --- starting --------------------------------------------------------------------------------------------------
window.addEventListener("beforeunload", (event) => {
  if (memory.size) event.preventDefault();
});

export function start() {
  if (!user) return;
  for (const key of keysInStorage().filter((key) => key.startsWith(`${PREFIX}${user}:`)).sort()) {
    try {
      const entry = { key, ...JSON.parse(kept.getItem(key)) };
      lanes.set(entry.image, [...(lanes.get(entry.image) ?? []), entry]);
    } catch {
      forget(key); // not written by us
    }
  }
  showOthers();
  // Whoever shows these images listens once the scripts of the page have run.
  document.addEventListener("DOMContentLoaded", () => {
    for (const [image, [entry]] of lanes) {
      if (entry.conflict) ask(entry);
      else tell(image, "sending");
    }
    pump();
  });
}

start();
