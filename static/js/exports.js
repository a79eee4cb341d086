// Exports: as long as one is being written, the table is looked at now and then.
import { lookWhile } from "./looking.js";

const MOVING = "[data-export-moving]";
const place = document.querySelector("[data-export-place]");

if (place) lookWhile(place, MOVING, show);

function show(fresh) {
  const held = place.contains(document.activeElement) && document.activeElement.dataset.key;
  place.replaceChildren(fresh);
  if (held) place.querySelector(`[data-key="${held}"]`)?.focus({ preventScroll: true });
  if (!place.querySelector(MOVING)) {
    document.dispatchEvent(new CustomEvent("announce", { detail: "The exports are finished." }));
  }
}
