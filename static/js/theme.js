// Loaded before the page is drawn, so that a chosen theme never flashes in the other one.
(() => {
  const root = document.documentElement;
  const themes = ["system", "light", "dark"];
  const key = "theme";

  function stored() {
    try {
      return localStorage.getItem(key) ?? "system";
    } catch {
      return "system"; // storage is forbidden: the choice lasts as long as the page
    }
  }

  function apply(theme) {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
  }

  root.classList.add("scripted");
  let theme = themes.includes(stored()) ? stored() : "system";
  apply(theme);

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-switch]");
    if (!button) return;
    const show = () => {
      button.textContent = { system: "Auto", light: "Light", dark: "Dark" }[theme];
      button.dataset.shows = theme;
      button.setAttribute("aria-label", `Theme: ${button.textContent.toLowerCase()}. Change`);
    };
    button.addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      apply(theme);
      try {
        localStorage.setItem(key, theme);
      } catch {
        // see above
      }
      show();
    });
    button.hidden = false;
    show();
  });
})();
