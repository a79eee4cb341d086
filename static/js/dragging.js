// A tile is dragged into the tray of a cell type, which says that it is one.
// `drop(link, slug)` is told; `names` are the cell types that there are, by their slugs.
export function acceptDrags(root, { names, mayDrag, drop }) {
  let dragged = null;
  root.addEventListener("dragstart", (event) => {
    dragged = mayDrag() ? event.target.closest(".tile > a, .tile")?.closest(".tile")?.querySelector("a") : null;
    if (!dragged) return;
    event.dataTransfer.effectAllowed = "move";
    // A tick later: what changes at once would end the drag.
    setTimeout(() => dragged && showDropBar(root, names));
  });
  root.addEventListener("dragover", (event) => {
    const tray = dragged && event.target.closest("[data-slug]");
    over(root, tray);
    if (tray) event.preventDefault();
  });
  root.addEventListener("drop", (event) => {
    const tray = dragged && event.target.closest("[data-slug]");
    if (!tray) return;
    event.preventDefault();
    const link = dragged;
    end();
    drop(link, tray.dataset.slug);
  });
  root.addEventListener("dragend", end);

  // Also after a drop, since a tile that leaves the page tells of no end.
  function end() {
    dragged = null;
    root.querySelector(".drop-bar")?.remove();
    over(root, null);
  }
}

function over(root, tray) {
  for (const each of root.querySelectorAll(".is-over")) if (each !== tray) each.classList.remove("is-over");
  tray?.classList.add("is-over");
}

// Types that have no tray yet, or one out of sight, are at hand while a tile is dragged; nothing moves under the mouse.
function showDropBar(root, names) {
  const bar = document.createElement("div");
  bar.className = "drop-bar";
  bar.setAttribute("aria-hidden", "true");
  for (const [slug, name] of names) {
    const type = document.createElement("span");
    type.className = `drop-type cell-${slug}`;
    type.dataset.slug = slug;
    type.innerHTML = '<span class="dot"></span>';
    type.append(name);
    bar.append(type);
  }
  root.append(bar);
}
