// A part of a page that is looked at anew now and then, as long as something in it moves.
import { fragment } from "./polling.js";
import { whenSignedIn } from "./session.js";

const STEPS = [1000, 2000, 3000, 5000];
const HIDDEN = 60_000;

// `moving` selects what moves within `place`; `show` puts the fresh part there.
export function lookWhile(place, moving, show) {
  let step = 0;
  let timer = null;

  function soon() {
    step = 0;
    later();
  }

  function later() {
    clearTimeout(timer);
    if (!place.querySelector(moving)) return;
    timer = setTimeout(look, document.hidden ? HIDDEN : STEPS[Math.min(step, STEPS.length - 1)]);
  }

  async function look() {
    try {
      show(await fragment(place.dataset.url));
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

  document.addEventListener("visibilitychange", soon);
  soon();
}
