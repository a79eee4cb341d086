// The form in which a panel asks what a cell is, and the panel drawn anew once its review is stored.
import { fragment } from "./polling.js";
import { say, settle } from "./reviews.js";

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
