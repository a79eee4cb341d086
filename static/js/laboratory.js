// The settings form: rows of the table move at once, and what was typed is not lost by mistake.
const form = document.querySelector("form[data-laboratory]");
if (form) start();

function start() {
  const rows = form.querySelector("[data-rows]");
  let dirty = Boolean(document.querySelector("#what-is-wrong, main .message-warning"));
  let leaving = false;

  form.addEventListener("input", () => (dirty = true));
  form.addEventListener("submit", (event) => {
    const move = event.submitter?.name === "move" && event.submitter;
    if (!move) {
      leaving = true;
      return;
    }
    event.preventDefault();
    step(move);
  });
  window.addEventListener("beforeunload", (event) => dirty && !leaving && event.preventDefault());

  function step(button) {
    const row = button.closest("tr");
    const up = button.value.startsWith("up:");
    const other = up ? row.previousElementSibling : row.nextElementSibling;
    if (!other) return;
    if (up) other.before(row);
    else other.after(row);
    dirty = true;
    number();
    // At the end of the way the button rests; the other one of the row takes the focus.
    (button.disabled ? row.querySelector("button:not([disabled])") : button).focus();
    const place = [...rows.children].indexOf(row) + 1;
    const words = `${row.dataset.name} is on place ${place} of ${rows.children.length}. Not saved yet.`;
    document.dispatchEvent(new CustomEvent("announce", { detail: words }));
  }

  function number() {
    const keys = rows.querySelectorAll("kbd").length;
    [...rows.children].forEach((row, place, all) => {
      const cell = row.querySelector("[data-key]");
      const key = document.createElement("kbd");
      key.textContent = place + 1;
      cell.replaceChildren(...(place < keys ? [key] : []));
      const [up, down] = row.querySelectorAll("button[name=move]");
      up.disabled = place === 0;
      down.disabled = place === all.length - 1;
    });
  }
}
