// The gallery of a case: from tile to tile and through the review by the keyboard alone, and what others do meanwhile.
import { acceptDrags } from "./dragging.js";
import { addButton, addNotice } from "./notices.js";
import { fragment, parse } from "./polling.js";
import { isPending, say, settle } from "./reviews.js";
import { whenSignedIn } from "./session.js";
import { below, merge, optimistic, place, unreviewed } from "./tiles.js";

const root = document.querySelector("[data-gallery]");
const { initials } = root.dataset;
const panelPlace = document.querySelector("[data-panel-place]");
const notices = root.querySelector("[data-gallery-notices]");
const keysDialog = document.querySelector("[data-keys-dialog]");
const typesDialog = document.querySelector("[data-types-dialog]");
const keysSwitch = document.querySelector("[data-keys-on]");
const wide = matchMedia("(min-width: 1000px)");
const names = new Map();
const digits = new Map();
let mayReview = "mayReview" in root.dataset;
let selected = null;
let panelTimer = null;
let panelWanted = "";
const acts = []; // the images of one's own reviews since the page was drawn, in the order in which they were said

for (const button of typesDialog?.querySelectorAll("[data-type-name]") ?? []) {
  names.set(button.value, button.dataset.typeName);
  const digit = button.querySelector("kbd")?.textContent;
  if (digit) digits.set(digit, button.value);
}

const announce = (detail) => document.dispatchEvent(new CustomEvent("announce", { detail }));
const linkOf = (image) => root.querySelector(`a[data-image="${image}"]`);
const links = () => [...root.querySelectorAll(".tray[open]:not([hidden]) .tile > a")];

// --- from tile to tile -----------------------------------------------------------------------------------------
function select(link, { focus = false } = {}) {
  if (!link) return;
  if (selected && selected !== link) {
    selected.tabIndex = -1;
    selected.parentElement.classList.remove("is-selected");
  }
  selected = link;
  link.tabIndex = 0;
  link.parentElement.classList.add("is-selected");
  if (focus) {
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest" });
  }
  showPanel(link.dataset.image, 150);
}

function step(by) {
  const all = links();
  const here = all.indexOf(selected);
  select(all[Math.max(0, Math.min(all.length - 1, here + by))] ?? all[0], { focus: true });
}

function goOn(from) {
  const to = unreviewed(links(), from);
  if (to) select(to, { focus: true });
  else announce("Every cell that is shown here is reviewed.");
}

// --- the panel at the side -------------------------------------------------------------------------------------
function showPanel(image, delay) {
  if (!wide.matches) return;
  panelWanted = image;
  clearTimeout(panelTimer);
  panelTimer = setTimeout(loadPanel, delay);
}

async function loadPanel() {
  const image = panelWanted;
  const link = linkOf(image);
  // While reviews follow each other quickly, the last one is enough.
  if (!link || isPending(image)) return;
  try {
    const answer = await fetch(link.href, { headers: { "X-Fragment": "side" }, cache: "no-store" });
    if (!answer.ok || image !== panelWanted) return;
    const fresh = parse(await answer.text()).firstElementChild;
    const old = panelPlace.firstElementChild;
    const focused = old?.contains(document.activeElement);
    if (old?.querySelector("[data-side-more]")?.open) fresh.querySelector("[data-side-more]").open = true;
    if (old?.dataset.shows === image) keepPicture(old, fresh);
    panelPlace.replaceChildren(document.adoptNode(fresh));
    panelPlace.hidden = false;
    if (focused) selected?.focus({ preventScroll: true });
  } catch {
    // The tile's link leads to the same page.
  }
}

// The same picture is not loaded again, and an enlarged one stays enlarged.
function keepPicture(old, fresh) {
  fresh.querySelector(".viewer").replaceWith(old.querySelector(".viewer"));
}

// --- saying what it is -----------------------------------------------------------------------------------------
function act(link, said, { stay = false } = {}) {
  if (!mayReview || !link) return;
  const { status, says, final } = link.dataset;
  if ("void" in link.dataset) announce("This image is void.");
  else if (status === "queued" || status === "claimed") announce("This image is not classified yet.");
  else if (said.final_label && said.final_label === final) goOn(link);
  else {
    const label = said.final_label ?? (said.verdict === "CONFIRMED" ? says : "");
    say({ image: link.dataset.image, page: link.pathname, previous: link.dataset.review ?? "" }, said);
    // The question that is open is asked anew.
    if (link.parentElement.dataset.mark === "conflict") return;
    const following = stay ? null : unreviewed(links(), link);
    acts.push(link.dataset.image);
    optimistic(link, { label, name: names.get(label) ?? "Unusable", initials, at: Date.now() / 1000 });
    announce(label ? `${names.get(label)}` : "Unusable");
    if (following) select(following, { focus: true });
    else if (!stay) goOn(link);
  }
}

function confirm(link) {
  if ("review" in link.dataset) goOn(link);
  else if (link.dataset.says && link.dataset.status === "classified") act(link, { verdict: "CONFIRMED", final_label: link.dataset.says });
  else announce("The model gives no class here. Press the key of a cell type.");
}

// What one said last and still counts. Of what was said before the page was drawn the server knows the order.
function undo() {
  const mine = [...root.querySelectorAll("a[data-mine]:not([data-undoing])")];
  let last = null;
  while (!last && acts.length) {
    const image = acts.pop();
    last = mine.find((link) => link.dataset.image === image);
  }
  last ??= mine.sort((one, other) => other.dataset.at - one.dataset.at)[0];
  if (last) withdraw(last);
  else announce("There is no review of yours to undo.");
}

function withdraw(link) {
  link.dataset.undoing = "";
  say({ image: link.dataset.image, page: link.pathname, previous: link.dataset.review ?? "" }, { verdict: "WITHDRAWN" });
  select(link, { focus: true });
  announce("Undone");
}

// --- what became of it -----------------------------------------------------------------------------------------
const MARKS = { sending: "Sending", waiting: "Not stored yet", conflict: "Decide", refused: "Not stored" };

document.addEventListener("review", (event) => {
  const { image, state, answer, message, leave, isLast } = event.detail;
  const link = linkOf(image);
  if (!link) return;
  const tile = link.parentElement;
  if (answer?.tile && (isLast || state === "conflict" || state === "refused")) take(link, answer.tile);
  mark(tile, state);
  root.querySelector(`[data-asks="${image}"]`)?.remove();
  // Of a tile that belongs to no tray of this page, and so has left it, the notice above the page tells.
  if (state === "conflict" && tile.isConnected) ask(image, message, leave);
  else if (state === "refused" && tile.isConnected) tellTrouble(message);
  if (state === "stored" && isLast) {
    showCase(answer.case);
    document.dispatchEvent(new Event("case-changed"));
    if (panelWanted === image) showPanel(image, 0);
  } else if (state === "settled") catchUp([image]);
});

function take(link, html) {
  merge(link, parse(html).querySelector(".tile"));
  if (link === selected) select(link, { focus: document.activeElement === link });
}

function mark(tile, state) {
  tile.querySelector(".tile-mark")?.remove();
  const words = MARKS[state];
  tile.dataset.mark = words ? state : "";
  if (!words) return;
  const shown = document.createElement("span");
  shown.className = "tile-mark";
  shown.textContent = words;
  tile.querySelector("a").append(shown);
}

function ask(image, message, leave) {
  const line = addNotice(notices, message, "alert");
  line.dataset.asks = image;
  const end = (insist) => {
    line.remove();
    const link = linkOf(image);
    settle(image, { insist, previous: link?.dataset.review ?? "" });
    select(link, { focus: true });
  };
  addButton(line, "Show it", () => select(linkOf(image), { focus: true }));
  addButton(line, leave, () => end(false));
  addButton(line, "Use mine", () => end(true));
}

function tellTrouble(message) {
  const line = addNotice(notices, message, "alert");
  addButton(line, "Close", () => line.remove());
}

// --- what others do --------------------------------------------------------------------------------------------
const OFTEN = 4000;
const WAITING = 1500;
const HIDDEN = 60_000;
const SETTLED = 15_000;
const AT_ONCE = 100;
let cursor = root.dataset.cursor;
let timer = null;
let polling = false;
let failed = 0;

function schedule() {
  clearTimeout(timer);
  const waits = root.querySelector('a[data-status="queued"], a[data-status="claimed"]');
  timer = setTimeout(poll, document.hidden ? HIDDEN : waits && failed < 3 ? WAITING : OFTEN);
}

async function poll() {
  if (polling) return;
  polling = true;
  try {
    const address = `${root.dataset.changes}?since=${encodeURIComponent(cursor)}`;
    const answer = await fetch(address, { headers: { "X-Fragment": "1" }, cache: "no-store" });
    if (answer.status === 401) {
      whenSignedIn(schedule);
      return;
    }
    if (!answer.ok) throw new Error(`answer ${answer.status}`);
    const changes = await answer.json();
    const news = Object.entries(changes.images).filter(([image, version]) => linkOf(image)?.dataset.version !== version);
    await catchUp(news.map(([image]) => image));
    cursor = changes.cursor;
    failed = 0;
    showCase(changes.case);
    showOnce("stale", changes.too_many && "Many images of this case have changed.");
    if (news.length) document.dispatchEvent(new Event("case-changed"));
    await showQueue();
  } catch {
    failed += 1;
  } finally {
    polling = false;
  }
  showLate();
  schedule();
}

// Loads tiles anew; one with a review of ours on its way shows the server's answer to that.
async function catchUp(images) {
  const shown = (image) => linkOf(image) || !("partly" in root.dataset);
  const wanted = images.filter((image) => !isPending(image) && shown(image));
  // What has changed before the page was drawn is named once more at first.
  const isNews = performance.now() > SETTLED && !images.every(shown);
  showOnce("unseen", isNews && "Cells that are not shown on this page have changed or were added.");
  for (let start = 0; start < wanted.length; start += AT_ONCE) {
    const some = wanted.slice(start, start + AT_ONCE);
    const before = new Map(some.map((image) => [image, linkOf(image)?.dataset.version]));
    const address = `${root.dataset.tiles}?${some.map((image) => `id=${image}`).join("&")}`;
    for (const tile of (await fragment(address)).querySelectorAll(".tile")) {
      const { image } = tile.querySelector("a").dataset;
      const link = linkOf(image);
      if (!link) place(root, document.adoptNode(tile), { isNew: true });
      // One of ours that was stored meanwhile is newer than this answer.
      else if (!isPending(image) && link.dataset.version === before.get(image)) {
        merge(link, tile);
        if (link.dataset.image === panelWanted) showPanel(panelWanted, 0);
      }
    }
  }
  rove();
}

async function showQueue() {
  const place = document.querySelector("[data-queue-place]");
  const waits = root.querySelector('a[data-status="queued"], a[data-status="claimed"]');
  if (!waits && !place.childElementCount) return;
  place.replaceChildren(...(waits ? [await fragment(place.dataset.url)] : []));
}

function showCase({ status, name }) {
  if (status === root.dataset.caseStatus) return;
  const ribbon = document.querySelector("[data-ribbon]");
  ribbon.textContent = name;
  ribbon.className = `ribbon ribbon-${status}`;
  const wasOpen = ["open", "in_review"].includes(root.dataset.caseStatus);
  const isOpen = ["open", "in_review"].includes(status);
  root.dataset.caseStatus = status;
  if (wasOpen === isOpen) return;
  mayReview &&= isOpen;
  showOnce("case", `This case is now ${name.toLowerCase()}.`);
}

function showOnce(name, message) {
  if (!message || notices.querySelector(`[data-once="${name}"]`)) return;
  const line = addNotice(notices, message);
  line.dataset.once = name;
  addButton(line, "Load the page again", () => location.reload());
}

function showLate() {
  const line = notices.querySelector("[data-late]");
  if (failed < 2) line?.remove();
  else if (!line) addNotice(notices, "The server can't be reached, so this page may be out of date. It tries again by itself.").dataset.late = "";
}

// One tile is on the way of the Tab key: the selected one, or the first that wants a person.
function rove() {
  for (const link of root.querySelectorAll(".tile > a:not([tabindex])")) link.tabIndex = -1;
  if (selected?.isConnected) return;
  const first = unreviewed(links(), null) ?? links()[0];
  if (first) first.tabIndex = 0;
  selected = first ?? null;
  selected?.parentElement.classList.add("is-selected");
}

// --- keys ------------------------------------------------------------------------------------------------------
const ARROWS = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => row(-1), ArrowDown: () => row(1) };

function row(direction) {
  select(below(links(), selected, direction), { focus: true });
}

function onKey(event) {
  const { key } = event;
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]") || !keysSwitch.checked) return;
  const at = document.activeElement;
  const onTile = at?.parentElement?.classList.contains("tile");
  const free = !at || at === document.body || at.id === "main" || onTile;
  const inPanel = panelPlace.contains(at) && !at.closest("input:not([type=range]), textarea, select, .zoomer");
  const arrow = free && !event.shiftKey && ARROWS[key];
  if (arrow) arrow();
  else if (key === "?" && (free || inPanel)) keysDialog.showModal();
  else if (!mayReview || !(free || inPanel)) return;
  else if (key === "Enter" && free && selected) confirm(selected);
  else if (digits.has(key)) act(selected, { final_label: digits.get(key) });
  else if (key === "0" || key.toLowerCase() === "m") openTypes();
  else if (key.toLowerCase() === "x") act(selected, { verdict: "UNUSABLE" });
  else if (key.toLowerCase() === "u") undo();
  else return;
  event.preventDefault();
}

function openTypes() {
  if (!selected) return;
  typesDialog.returnValue = "";
  typesDialog.showModal();
}

typesDialog?.addEventListener("close", () => {
  const label = typesDialog.returnValue;
  if (names.has(label)) act(selected, { final_label: label });
  else selected?.focus({ preventScroll: true });
});
keysDialog.addEventListener("close", () => selected?.focus({ preventScroll: true }));
document.addEventListener("keydown", onKey);
document.addEventListener("zoom-closed", () => selected?.focus({ preventScroll: true }));

// Whoever works with a screen reader or by voice may want single keys to do nothing here.
try {
  keysSwitch.checked = localStorage.getItem("gallery-keys") !== "off";
} catch {
  // storage is forbidden: the choice lasts as long as the page
}
keysSwitch.addEventListener("change", () => {
  try {
    localStorage.setItem("gallery-keys", keysSwitch.checked ? "on" : "off");
  } catch {
    // as above
  }
});

// --- the mouse -------------------------------------------------------------------------------------------------
root.addEventListener("focusin", (event) => {
  const link = event.target.closest(".tile > a");
  if (link) select(link);
});
root.addEventListener("click", (event) => {
  const link = event.target.closest(".tile > a");
  if (!link || !wide.matches || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  select(link, { focus: true });
});
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-open-keys]")) keysDialog.showModal();
  else if (event.target.closest("[data-open-types]")) openTypes();
  else if (event.target.closest("[data-step]")) step(Number(event.target.closest("[data-step]").dataset.step));
  else if (event.target.closest("[data-print]")) window.print();
  else if (event.target.closest("[data-open-upload]")) document.querySelector("[data-upload-fold]").open = true;
});
// A button of the panel does what its key does.
panelPlace.addEventListener("say", (event) => {
  const { image, said } = event.detail;
  const link = linkOf(image);
  if (!link) return;
  event.preventDefault();
  if (said.verdict === "WITHDRAWN") withdraw(link);
  else act(link, said);
});

acceptDrags(root, { names, mayDrag: () => mayReview, drop: (link, slug) => act(link, { final_label: slug }) });

// --- parts of the page on a phone, uploads ---------------------------------------------------------------------
const parts = document.querySelector("[data-case-parts]");
const PARTS = { "#cells": "cells", "#differential-part": "differential", "#history": "history" };

function showPart() {
  parts.dataset.part = PARTS[location.hash] ?? "cells";
  for (const tab of document.querySelectorAll(".case-tabs a")) {
    if (PARTS[tab.hash] === parts.dataset.part) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
  }
}
window.addEventListener("hashchange", showPart);
showPart();

const arrivals = document.querySelector("[data-arrivals]");
if (arrivals) {
  new MutationObserver(() => {
    if (!arrivals.childElementCount) return;
    const images = [...arrivals.children].map((card) => card.dataset.image);
    arrivals.replaceChildren();
    catchUp(images).then(schedule, schedule);
  }).observe(arrivals, { childList: true });
  document.addEventListener("drop", (event) => {
    if (event.dataTransfer?.types.includes("Files")) document.querySelector("[data-upload-fold]").open = true;
  });
}

document.addEventListener("visibilitychange", () => (document.hidden ? schedule() : poll()));
wide.addEventListener("change", () => selected && showPanel(selected.dataset.image, 0));
rove();
if (selected && "review" in selected.dataset === false && selected.dataset.status === "classified") showPanel(selected.dataset.image, 0);
schedule();
