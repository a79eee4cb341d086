// What a page says of reviews that are not stored yet, where no tile and no panel of it says so.
const LINKS_AT_ONCE = 10;
const main = document.querySelector("main");

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
export function isShown(image) {
  return document.querySelector(`.tile > a[data-image="${image}"], [data-panel][data-image="${image}"]`) !== null;
}

function linkTo(page, words) {
  const link = document.createElement("a");
  link.href = page;
  link.textContent = words;
  return link;
}

export function showRefused(image, { message, page }) {
  const place = notice(`refused-${image}`);
  const [line, button] = place.children;
  line.replaceChildren(`A review was not stored. ${message} `, page ? linkTo(page, "Open the image") : "");
  button.textContent = "Close";
  button.onclick = () => place.remove();
}

// Questions that nothing on this page can ask.
export function showConflicts(entries) {
  const open = entries.filter((entry) => entry.conflict && !isShown(entry.image));
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

// So many wait because of `trouble`: "signed out", "unreachable", or none.
export function showWaiting(waiting, trouble, retryNow) {
  if (!waiting || !trouble) {
    main.querySelector('[data-review-notice="unsent"]')?.remove();
    return;
  }
  const place = notice("unsent");
  const why = trouble === "signed out" ? "Sign in again to send them." : "The server can't be reached; this page tries again by itself.";
  const sentence = `${plural(waiting)} not stored yet, kept in this browser. ${why}`;
  const [line, button] = place.children;
  if (line.textContent !== sentence) line.textContent = sentence;
  button.textContent = "Try now";
  button.hidden = trouble === "signed out";
  button.onclick = retryNow;
}

// What somebody else left in this browser goes out when that person signs in here, or is thrown away.
export function showOthers(others, forget) {
  if (!others.length) return;
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
