// The picture: zoom, the cell that was found, the heat map. Listens on the document, since panels come and go.
const LEVELS = 3;

function act(panel, name, direction) {
  const layers = panel.querySelector("[data-layers]");
  if (name === "zoom") {
    const level = direction === "fit" ? 0 : Number(layers.dataset.level ?? 0) + (direction === "in" ? 1 : -1);
    layers.dataset.level = Math.max(0, Math.min(LEVELS, level));
    centre(panel);
  } else if (name === "box") {
    toggle(panel.querySelector("[data-box]"), panel.querySelector("[data-box-toggle]"));
  } else if (name === "heat") {
    const heat = panel.querySelector("[data-heat]");
    if (heat && !heat.src) heat.src = heat.dataset.src;
    const shown = toggle(heat, panel.querySelector("[data-heat-toggle]"));
    const strength = panel.querySelector("[data-heat-strength]");
    if (strength) strength.hidden = !shown;
    if (heat) heat.style.opacity = panel.querySelector("[data-heat-range]").value / 100;
  }
}

// Zooming keeps the cell that was found, else the middle, in sight.
function centre(panel) {
  const stage = panel.querySelector("[data-stage]");
  const found = panel.querySelector("[data-box]");
  const { x, y, width, height } = found?.querySelector("path").getBBox() ?? {};
  const across = found ? (x + width / 2) / found.viewBox.baseVal.width : 0.5;
  const down = found ? (y + height / 2) / found.viewBox.baseVal.height : 0.5;
  stage.scrollLeft = across * stage.scrollWidth - stage.clientWidth / 2;
  stage.scrollTop = down * stage.scrollHeight - stage.clientHeight / 2;
}

function toggle(layer, button) {
  if (!layer) return false;
  // An svg element has no `hidden` property of its own.
  const shown = layer.toggleAttribute("hidden") === false;
  button.setAttribute("aria-pressed", shown);
  return shown;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-zoom], [data-box-toggle], [data-heat-toggle]");
  const panel = button?.closest("[data-panel]");
  if (!panel) return;
  if (button.dataset.zoom) act(panel, "zoom", button.dataset.zoom);
  else act(panel, "boxToggle" in button.dataset ? "box" : "heat");
});

document.addEventListener("input", (event) => {
  if (!event.target.matches("[data-heat-range]")) return;
  event.target.closest("[data-panel]").querySelector("[data-heat]").style.opacity = event.target.value / 100;
});

const KEYS = { h: ["heat"], b: ["box"], "+": ["zoom", "in"], "-": ["zoom", "out"], 0: ["zoom", "fit"] };
document.addEventListener("keydown", (event) => {
  const panel = document.querySelector("[data-panel]");
  const key = KEYS[event.key.toLowerCase()];
  if (!panel || !key || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=range]), select, textarea")) return;
  act(panel, ...key);
});
