// What of the reviews on their way is kept in this browser: ids, verdicts and cell types; a comment stays in the page.
const PREFIX = "review:";
const { user } = document.body.dataset;
const memory = new Map();
let counter = 0;
const kept = (() => {
  try {
    localStorage.setItem(`${PREFIX}probe`, "");
    localStorage.removeItem(`${PREFIX}probe`);
    return localStorage;
  } catch {
    return null; // storage is forbidden: what is on its way lasts as long as the page
  }
})();

export function keep({ key, ...rest }) {
  forget(key);
  try {
    if (!kept || rest.said.comment) memory.set(key, rest);
    else kept.setItem(key, JSON.stringify(rest));
  } catch {
    memory.set(key, rest);
  }
}

export function read(key) {
  return memory.get(key) ?? JSON.parse(kept?.getItem(key) ?? "null");
}

export function forget(key) {
  memory.delete(key);
  kept?.removeItem(key);
}

function keysInStorage() {
  return kept ? Object.keys(kept).filter((key) => key.startsWith(PREFIX)) : [];
}

const isOwn = (key) => key.startsWith(`${PREFIX}${user}:`);

export const keysOfOthers = () => keysInStorage().filter((key) => !isOwn(key));

// One's own entries of an earlier page, the oldest first.
export function ownEntries() {
  const entries = [];
  for (const key of keysInStorage().filter(isOwn).sort()) {
    try {
      entries.push({ key, ...JSON.parse(kept.getItem(key)) });
    } catch {
      forget(key); // not written by us
    }
  }
  return entries;
}

// The name of the lock under which one tab at a time sends what is about an image.
export const lockOf = (image) => `${PREFIX}${image}`;

export function newKey() {
  counter += 1;
  const chance = Math.random().toString(36).slice(2, 8);
  return `${PREFIX}${user}:${Date.now().toString(36).padStart(9, "0")}-${String(counter).padStart(5, "0")}-${chance}`;
}

window.addEventListener("beforeunload", (event) => {
  if (memory.size) event.preventDefault();
});
