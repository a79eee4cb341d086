// What makes the pages quicker to use. Every page works without it.
import "./js/session.js";
import "./js/idle.js";
import "./js/polling.js";
import "./js/uploads.js";
import "./js/viewer.js";

const announcer = document.querySelector("#announcer");
document.addEventListener("announce", (event) => {
  announcer.textContent = event.detail;
});

document.addEventListener("click", (event) => {
  const filler = event.target.closest("[data-fill-address]");
  if (filler) {
    const form = document.querySelector("[data-sign-in-form]");
    form.elements.login.value = filler.dataset.fillAddress;
    form.elements.password.focus();
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
