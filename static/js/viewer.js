// The picture: zoom, the cell that was found, the heat map. Listens on the document, since panels come and go.
import "./review_panels.js";

const zoomers = new WeakMap(); // panel -> the OpenSeadragon viewer over its picture
let loading = null;

function act(panel, name) {
  if (name === "zoom") zoom(panel);
  else if (name === "in") zoom(panel, 1.5);
  else if (name === "out") zoom(panel, 1 / 1.5);
  else if (name === "box") toggle(panel, "[data-box]", "[data-box-toggle]");
  else if (name === "heat") {
    for (const heat of panel.querySelectorAll("[data-heat]")) if (!heat.src) heat.src = heat.dataset.src;
    const shown = toggle(panel, "[data-heat]", "[data-heat-toggle]");
    const strength = panel.querySelector("[data-heat-strength]");
    if (strength) strength.hidden = !shown;
    strengthen(panel);
  }
}

// A layer may be there twice: on the picture, and on the enlarged one.
function toggle(panel, layers, button) {
  const all = panel.querySelectorAll(layers);
  if (!all.length) return false;
  const shown = all[0].hasAttribute("hidden");
  for (const layer of all) layer.toggleAttribute("hidden", !shown);
  panel.querySelector(button).setAttribute("aria-pressed", shown);
  return shown;
}

function strengthen(panel) {
  const range = panel.querySelector("[data-heat-range]");
  for (const heat of panel.querySelectorAll("[data-heat]")) heat.style.opacity = range.value / 100;
}

// --- zoom ------------------------------------------------------------------------------------------------------
// The script is large, so it is loaded when somebody zooms for the first time.
function loadZoomer(address) {
  loading ??= new Promise((done, failed) => {
    // It adds a style sheet, which the policy forbids, unless it finds its own: an element of that name, no style sheet.
    const style = document.createElementNS(null, "style");
    style.setAttribute("data-openseadragon-mobile-css", "true");
    const script = document.createElement("script");
    script.src = address;
    script.onload = () => done(globalThis.OpenSeadragon);
    script.onerror = () => {
      loading = null;
      failed(new Error("not loaded"));
    };
    document.head.append(style, script);
  });
  return loading;
}

// Without a factor: on, or off again.
async function zoom(panel, factor) {
  const button = panel.querySelector("[data-zoom]");
  const open = zoomers.get(panel);
  if (open && !factor) {
    close(panel);
    return;
  }
  if (open) {
    open.viewport.zoomBy(factor).applyConstraints();
    return;
  }
  if (factor < 1) return;
  try {
    show(panel, await loadZoomer(button.dataset.zoomer), factor ?? 2);
  } catch {
    document.dispatchEvent(new CustomEvent("announce", { detail: "The picture can't be enlarged at present." }));
  }
}

function show(panel, OpenSeadragon, factor) {
  if (zoomers.has(panel) || !panel.isConnected) return;
  const stage = panel.querySelector("[data-stage]");
  const picture = stage.querySelector(".picture");
  const place = document.createElement("div");
  place.className = "zoomer";
  stage.append(place);
  const viewer = new OpenSeadragon.Viewer({
    element: place,
    tileSources: { type: "image", url: picture.src },
    drawer: "canvas",
    showNavigationControl: false,
    visibilityRatio: 0.6,
    minZoomImageRatio: 1,
    maxZoomPixelRatio: 8,
    animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.4,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  });
  zoomers.set(panel, viewer);
  panel.querySelector("[data-zoom]").setAttribute("aria-pressed", "true");
  viewer.addOnceHandler("open", () => {
    const shape = new OpenSeadragon.Rect(0, 0, 1, picture.naturalHeight / picture.naturalWidth);
    for (const layer of stage.querySelectorAll(".layers > .layer")) {
      const double = layer.cloneNode(true);
      double.classList.replace("layer", "zoomed-layer");
      viewer.addOverlay({ element: double, location: shape });
    }
    viewer.viewport.zoomTo(viewer.viewport.getHomeZoom() * factor, middle(panel, OpenSeadragon, shape), true);
    place.dataset.open = "";
  });
  viewer.canvas.setAttribute("aria-label", "Enlarged picture: arrows move it, plus and minus zoom, Escape closes it");
  viewer.canvas.setAttribute("role", "application");
  viewer.canvas.focus();
}

// Zooming keeps the cell that was found, else the middle, in sight.
function middle(panel, OpenSeadragon, shape) {
  const found = panel.querySelector(".layers > [data-box]");
  if (!found) return new OpenSeadragon.Point(0.5, shape.height / 2);
  const { width } = found.viewBox.baseVal;
  const numbers = found.querySelector("path").getAttribute("d").match(/\d+/g).map(Number);
  const [left, top, right, bottom] = numbers;
  return new OpenSeadragon.Point((left + right) / 2 / width, (top + bottom) / 2 / width);
}

function close(panel) {
  const viewer = zoomers.get(panel);
  const place = panel.querySelector(".zoomer");
  const hadFocus = place?.contains(document.activeElement);
  zoomers.delete(panel);
  viewer.destroy();
  place?.remove();
  const button = panel.querySelector("[data-zoom]");
  button.setAttribute("aria-pressed", "false");
  if (hadFocus) button.focus();
  panel.dispatchEvent(new CustomEvent("zoom-closed", { bubbles: true }));
}

// --- wiring ----------------------------------------------------------------------------------------------------
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-zoom], [data-box-toggle], [data-heat-toggle]");
  const panel = button?.closest("[data-panel]");
  if (!panel) return;
  if ("zoom" in button.dataset) act(panel, "zoom");
  else act(panel, "boxToggle" in button.dataset ? "box" : "heat");
});

document.addEventListener("input", (event) => {
  if (event.target.matches("[data-heat-range]")) strengthen(event.target.closest("[data-panel]"));
});

const KEYS = { h: "heat", b: "box", z: "zoom", "+": "in", "-": "out" };
document.addEventListener("keydown", (event) => {
  const panel = document.querySelector("[data-panel]");
  if (!panel || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input:not([type=range]), select, textarea")) return;
  if (event.key === "Escape" && zoomers.has(panel)) {
    event.stopPropagation();
    close(panel);
    return;
  }
  // The enlarged picture has keys of its own for this.
  if ("+-".includes(event.key) && event.target.closest(".zoomer")) return;
  const name = KEYS[event.key.toLowerCase()];
  if (name) act(panel, name);
});
