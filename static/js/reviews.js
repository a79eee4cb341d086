// Reviews on their way. Each is kept in this browser until the server has it, and goes out in the order of its image;
// a lost network, a sign-out or a reload loses none. Kept are ids, verdicts and cell types only; a comment stays in the page.
import { isShown, showConflicts, showOthers, showRefused, showWaiting } from "./review_notices.js";
import { csrfToken, whenSignedIn } from "./session.js";
import { forget, keep, keysOfOthers, lockOf, newKey, ownEntries, read } from "./unsent_reviews.js";

const { user } = document.body.dataset;
const BACK_OFF = [1, 2, 4, 8, 15, 30];
const AT_ONCE = 4;
// What makes a person decide again, and what it is called to leave things as they are.
const QUESTIONS = {
  review_changed: "Somebody else reviewed this image before yours was stored. Look at it and decide again.",
  prediction_changed: "The model's result changed before your review was stored. Look at it and decide again.",
};
const LEAVING = { review_changed: "Keep the other's", prediction_changed: "Leave it open" };
const lanes = new Map(); // image id -> its entries, the oldest first
const busy = new Set();
let paused = false;
let failures = 0;
let retry = null;

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
  return navigator.locks ? navigator.locks.request(lockOf(image), act) : act();
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

function showStatus() {
  const entries = [...lanes.values()];
  showConflicts(entries.map(([entry]) => entry));
  const trouble = paused ? "signed out" : retry ? "unreachable" : "";
  showWaiting(entries.flat().filter((entry) => !entry.conflict).length, trouble, retryNow);
}

// --- starting --------------------------------------------------------------------------------------------------
export function start() {
  if (!user) return;
  for (const entry of ownEntries()) lanes.set(entry.image, [...(lanes.get(entry.image) ?? []), entry]);
  showOthers(keysOfOthers(), forget);
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
