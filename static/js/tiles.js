// Tiles and trays: where a tile belongs, what it shows, which one comes next.

// The next tile that wants a person, after `from` and round again to the beginning.
export function unreviewed(links, from) {
  const here = links.indexOf(from);
  const round = [...links.slice(here + 1), ...links.slice(0, Math.max(0, here))];
  return round.find(
    ({ dataset }) => !("review" in dataset) && !("void" in dataset) && ["classified", "failed"].includes(dataset.status),
  );
}

// The tile in the next row down (direction 1) or up (-1) that is nearest to `from`.
export function below(links, from, direction) {
  if (!from) return links[0];
  const here = from.getBoundingClientRect();
  let best = null;
  let distance = Infinity;
  for (const link of links) {
    const { top, left } = link.getBoundingClientRect();
    const down = (top - here.top) * direction;
    if (down < 5) continue;
    // Rows first, then columns.
    const far = down * 10_000 + Math.abs(left - here.left);
    if (far < distance) [best, distance] = [link, far];
  }
  return best ?? from;
}

// Shows a review before the server has stored it.
export function optimistic(link, { label, name, initials, at }) {
  const chip = document.createElement("span");
  chip.className = `chip by-person${label ? ` cell-${label}` : ""}`;
  if (label) chip.innerHTML = '<span class="dot" aria-hidden="true"></span>';
  chip.append(name);
  const by = document.createElement("span");
  by.className = "tile-by";
  by.textContent = initials;
  link.querySelector(".tile-said").replaceChildren(chip, by);
  count(link, !("review" in link.dataset), true);
  Object.assign(link.dataset, { status: "reviewed", final: label, at, mine: "", review: link.dataset.review ?? "" });
  const tile = link.parentElement;
  tile.classList.add("is-reviewed");
  tile.dataset.tray = label || "unusable";
  place(link.closest("[data-gallery]"), tile);
}

// Makes the tile what the server says it is. The link stays the same element, so that it keeps the focus.
export function merge(link, fresh) {
  const tile = link.parentElement;
  const newer = fresh.querySelector("a");
  const picture = link.querySelector("img");
  const same = picture.getAttribute("src") === newer.querySelector("img").getAttribute("src");
  count(link, !("review" in link.dataset), "review" in newer.dataset);
  for (const { name } of [...link.attributes]) {
    if (name.startsWith("data-") && !newer.hasAttribute(name)) link.removeAttribute(name);
  }
  for (const { name, value } of newer.attributes) link.setAttribute(name, value);
  if (same) newer.querySelector("img").replaceWith(picture);
  link.replaceChildren(...newer.childNodes);
  tile.classList.toggle("is-reviewed", "review" in link.dataset);
  delete tile.dataset.mark;
  Object.assign(tile.dataset, { tray: fresh.dataset.tray, place: fresh.dataset.place });
  place(link.closest("[data-gallery]"), tile);
}

// Puts a tile into its tray, in the order of the tray. On a page that lacks the tray, the tile leaves.
export function place(root, tile, { isNew = false } = {}) {
  const from = isNew ? null : tile.closest(".tray");
  const to = root.querySelector(`[data-tray-of="${tile.dataset.tray}"]`);
  if (isNew) {
    tile.querySelector("a").tabIndex = -1;
    change(document.querySelector("[data-images]"), 1);
    root.querySelector("[data-empty]").hidden = true;
  }
  if (from === to) return;
  const focused = tile.contains(document.activeElement) ? document.activeElement : null;
  if (!to) tile.remove();
  else {
    const list = to.querySelector(".tiles");
    const next = [...list.children].find((each) => Number(each.dataset.place) > Number(tile.dataset.place));
    list.insertBefore(tile, next ?? null);
    resize(to, 1);
  }
  if (from) resize(from, -1);
  focused?.focus({ preventScroll: true });
}

function resize(tray, by) {
  const total = change(tray.querySelector("[data-count]"), by);
  tray.hidden = total === 0 && !tray.querySelector(".tile");
}

function count(link, wasOpen, isReviewed) {
  if ("void" in link.dataset || wasOpen !== isReviewed) return;
  change(document.querySelector("[data-reviewed]"), isReviewed ? 1 : -1);
}

function change(place, by) {
  const total = Number(place.textContent.replace(/\D/g, "")) + by;
  place.textContent = total;
  return total;
}
