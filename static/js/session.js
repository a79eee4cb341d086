// A session that ended in the middle of work: ask to sign in again in a new tab, then go on where we were.
const place = document.querySelector("#session-notice");
const { user, signIn, who } = document.body.dataset;
const waiting = new Set();
let asking = false;

// Django makes a new token at every sign-in, so it is read anew for every request.
export function csrfToken() {
  const cookie = document.cookie.split("; ").find((pair) => pair.startsWith("hematovision_csrf="));
  return cookie ? cookie.split("=")[1] : document.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";
}

// Calls `goOn` once the same person has signed in again.
export function whenSignedIn(goOn, why = "") {
  waiting.add(goOn);
  if (place.childElementCount) {
    // Whatever found out first, the reason is told.
    if (why) say(why);
    return;
  }
  place.innerHTML = `<div class="notice" data-signed-out><p></p>
    <a class="button primary" target="_blank" rel="noopener">Sign in in a new tab</a>
    <button type="button">Go on</button></div>`;
  place.querySelector("a").href = signIn;
  place.querySelector("button").addEventListener("click", () => look(true));
  say(why || "You were signed out. Nothing is lost: sign in again in a new tab, and this page goes on by itself.");
}

function say(sentence) {
  const line = place.querySelector("p");
  if (line.textContent !== sentence) line.textContent = sentence;
}

async function look(asked) {
  if (!place.childElementCount || asking) return;
  asking = true;
  try {
    const answer = await fetch(who, { headers: { Accept: "text/html" }, cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const present = page.body.dataset.user;
    if (present === user) goOn();
    else if (present) say("Somebody else is signed in now. What waits here stays with you: sign in as yourself to go on.");
    else if (asked) say("You are not signed in yet. Sign in in the new tab, then come back.");
  } catch {
    if (asked) say("The server can't be reached at present. Try again in a moment.");
  } finally {
    asking = false;
  }
}

function goOn() {
  place.replaceChildren();
  const all = [...waiting];
  waiting.clear();
  for (const each of all) each();
}

document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look(false));
window.addEventListener("focus", () => look(false));
