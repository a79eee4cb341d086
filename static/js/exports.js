// Exports: as long as one is being written, the table is looked at now and then.
import { fragment } from "./polling.js";
import { whenSignedIn } from "./session.js";

const STEPS = [1000, 2000, 3000, 5000];
const HIDDEN = 60_000;
const place = document.querySelector("[data-export-place]");
let step = 0;
let timer = null;

if (place) {
  document.addEventListener("visibilitychange", soon);
  soon();
}

function soon() {
  step = 0;
  later();
}

function later() {
  clearTimeout(timer);
  if (!place.querySelector("[data-export-moving]")) return;
  timer = setTimeout(look, document.hidden ? HIDDEN : STEPS[Math.min(step, STEPS.length - 1)]);
}

async function look() {
  try {
    const fresh = await fragment(place.dataset.url);
    const held = place.contains(document.activeElement) && document.activeElement.dataset.key;
    place.replaceChildren(fresh);
    if (held) place.querySelector(`[data-key="${held}"]`)?.focus({ preventScroll: true });
    if (!place.querySelector("[data-export-moving]")) {
      document.dispatchEvent(new CustomEvent("announce", { detail: "The exports are finished." }));
    }
    step += 1;
  } catch (error) {
    step = STEPS.length;
    if (error.message === "signed out") {
      whenSignedIn(soon);
      return;
    }
  }
  later();
}
