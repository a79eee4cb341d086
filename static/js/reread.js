// Blind re-read: a digit marks a class, X the picture as of no use, Enter saves. Nothing is saved by a digit alone.
const form = document.querySelector("form[data-reread]");
if (form) start();

function start() {
  let sent = false;
  const controls = new Map([...form.querySelectorAll("[data-key]")].map((input) => [input.dataset.key, input]));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("a, button, summary, input:not([type=radio]), textarea, select")) return;
    const chosen = controls.get(event.key.toLowerCase());
    if (chosen) {
      event.preventDefault();
      chosen.checked = true;
      chosen.focus({ preventScroll: true });
      document.dispatchEvent(new CustomEvent("announce", { detail: chosen.parentElement.querySelector("span").textContent }));
    } else if (event.key === "Enter") {
      event.preventDefault();
      form.requestSubmit();
    }
  });

  // A second Enter while the first is on its way must not answer for the next cell.
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
  window.addEventListener("pageshow", () => (sent = false));
}
