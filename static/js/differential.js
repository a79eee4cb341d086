// The differential of a case keeps up with what is reviewed and classified. Whoever changes a case says so:
// document.dispatchEvent(new Event("case-changed")).
import { fragment } from "./polling.js";

const PAUSES = [2000, 3000, 5000, 10_000];
const SOON = 150;
let asked = 0;
let timer = null;
let step = 0;

function place() {
  return document.querySelector("[data-differential]");
}

// Fetches the differential and shows it; of several at once only the last that was asked for.
export async function refreshDifferential() {
  const old = place();
  if (!old) return;
  const mine = ++asked;
  const fresh = (await fragment(old.dataset.url + location.search)).querySelector("[data-differential]");
  if (mine !== asked || !old.isConnected) return;
  keepOpen(old, fresh);
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  old.replaceWith(fresh);
  if (focused) refocus(fresh, focused);
  grow();
}

// What was unfolded stays unfolded.
function keepOpen(old, fresh) {
  for (const open of old.querySelectorAll("details[open] > summary")) {
    const same = [...fresh.querySelectorAll("summary")].find((each) => each.textContent === open.textContent);
    if (same) same.parentElement.open = true;
  }
}

function refocus(fresh, focused) {
  const same = focused.href ? [...fresh.querySelectorAll("a")].find((each) => each.href === focused.href) : null;
  const summary = [...fresh.querySelectorAll("summary")].find((each) => each.textContent === focused.textContent);
  (same ?? summary)?.focus({ preventScroll: true });
}

// While images of the case are on their way through the queue, look again, less and less often.
function grow() {
  clearTimeout(timer);
  timer = null;
  if (!place()?.matches("[data-growing]")) {
    step = 0;
    return;
  }
  timer = setTimeout(later, PAUSES[Math.min(step++, PAUSES.length - 1)]);
}

function later() {
  if (document.hidden) grow();
  else refreshDifferential().catch(grow);
}

document.addEventListener("case-changed", () => {
  clearTimeout(timer);
  step = 0;
  timer = setTimeout(later, SOON);
});

document.addEventListener("click", (event) => {
  const choice = event.target.closest("[data-differential] [data-width]");
  if (!choice || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  const address = new URL(location.href);
  address.searchParams.set("width", choice.dataset.width);
  history.replaceState(history.state, "", address);
  refreshDifferential().catch(() => location.assign(choice.href));
});

grow();
