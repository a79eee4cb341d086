// Who does nothing for some time is signed out. The server decides when; this warns before, and hides the page after.
// Tabs share when somebody was last active; nothing that waits to be sent is touched.
import { csrfToken, whenSignedIn } from "./session.js";

const { user, idle, idleWarning, activity } = document.body.dataset;
const KEY = `active:${user}`;
const LOOK_EVERY = 5_000;
const TELL_EVERY = 60_000;
const NOTE_EVERY = 1_000;
const STEP = 15;
let deadline = Date.now() + idle * 1000; // as the server told, or as far as we know
let told = Date.now(); // up to when the server knows of activity: opening the page was some
let noted = 0;
let asking = false;
let ended = false;
let dialog = null;

if (idle) start();

function start() {
  note();
  for (const kind of ["pointerdown", "keydown", "wheel", "touchstart"]) {
    // Under the question, only an answer counts.
    addEventListener(kind, () => dialog || note(), { capture: true, passive: true });
  }
  // Pictures and archives that are on their way are work as well.
  document.addEventListener("activity", note);
  addEventListener("storage", (event) => event.key === KEY && look());
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
  setInterval(look, LOOK_EVERY);
}

function note() {
  const now = Date.now();
  if (ended || now - noted < NOTE_EVERY) return;
  noted = now;
  try {
    localStorage.setItem(KEY, String(now));
  } catch {
    // Without storage each tab knows of itself only.
  }
}

function lastActive() {
  let shared = 0;
  try {
    shared = Number(localStorage.getItem(KEY)) || 0;
  } catch {
    // As above.
  }
  return Math.min(Date.now(), Math.max(noted, shared));
}

async function look() {
  if (ended || asking) return;
  const active = lastActive();
  if (active > told && (Date.now() - told > TELL_EVERY || dialog)) await ask(active);
  else if (secondsLeft() <= idleWarning) await ask(active);
  if (ended) return;
  const left = secondsLeft();
  if (left <= idleWarning) warn(left);
  else unwarn();
}

const secondsLeft = () => (deadline - Date.now()) / 1000;

// Tells the server of activity that it does not know of, or only asks how long there is.
async function ask(active) {
  asking = true;
  try {
    const news = active > told;
    const body = new URLSearchParams({ idle: Math.max(0, (Date.now() - active) / 1000).toFixed(1) });
    const headers = { "X-Fragment": "1", "X-CSRFToken": csrfToken() };
    const answer = await fetch(activity, { ...(news && { method: "POST", body }), headers, cache: "no-store" });
    if (answer.status === 401) return end();
    if (!answer.ok) return;
    if (news) told = active;
    deadline = Date.now() + (await answer.json()).seconds_left * 1000;
  } catch {
    // The server can't be reached: it will say when it can.
  } finally {
    asking = false;
  }
}

function warn(left) {
  if (!dialog) {
    dialog = document.createElement("dialog");
    dialog.className = "sheet idle-question";
    dialog.setAttribute("role", "alertdialog");
    dialog.setAttribute("aria-labelledby", "idle-title");
    dialog.setAttribute("aria-describedby", "idle-words");
    dialog.innerHTML = `<h2 id="idle-title">Are you still there?</h2><p id="idle-words" aria-live="polite"></p>
      <form method="dialog"><button type="submit" class="primary" autofocus>Stay signed in</button></form>`;
    dialog.addEventListener("close", stay);
    document.body.append(dialog);
    dialog.showModal();
  }
  // In steps, so that a screen reader is not kept talking.
  const shown = Math.max(STEP, Math.ceil(left / STEP) * STEP);
  const time = shown >= 60 ? `${Math.floor(shown / 60)} min${shown % 60 ? ` ${shown % 60} s` : ""}` : `${shown} s`;
  const sentence = `Without an answer you are signed out in about ${time}. Nothing that you entered is lost.`;
  const words = dialog.querySelector("p");
  if (words.textContent !== sentence) words.textContent = sentence;
}

function unwarn() {
  if (!dialog) return;
  const closing = dialog;
  dialog = null;
  closing.removeEventListener("close", stay);
  closing.remove();
}

// The button, or Escape.
function stay() {
  unwarn();
  noted = 0;
  note();
  look();
}

function end() {
  ended = true;
  unwarn();
  document.body.dataset.locked = "";
  const minutes = Math.round(idle / 60);
  whenSignedIn(
    () => {
      ended = false;
      delete document.body.dataset.locked;
      told = Date.now();
      deadline = told + idle * 1000;
      noted = 0;
      note();
    },
    `You were signed out after ${minutes} minutes without activity. Nothing is lost: sign in again in a new tab, and this page goes on by itself.`,
  );
}
