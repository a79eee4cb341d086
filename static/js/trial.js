// Shows by itself how far a trial is, and its outcome once it is there.
import { fragment } from "./polling.js";
import { whenSignedIn } from "./session.js";

const EVERY = 1500;
const place = document.querySelector("[data-trial-place]");
if (place) later();

function later() {
  if (place.querySelector("[data-trial-waiting]")) setTimeout(look, document.hidden ? 20 * EVERY : EVERY);
}

async function look() {
  const waiting = place.querySelector("[data-trial-waiting]");
  try {
    const fresh = await fragment(waiting.dataset.url);
    const finished = !fresh.querySelector("[data-trial-waiting]");
    place.replaceChildren(fresh);
    if (finished) document.dispatchEvent(new CustomEvent("announce", { detail: "The trial is finished." }));
  } catch (error) {
    if (error.message === "signed out") {
      whenSignedIn(look);
      return;
    }
  }
  later();
}
