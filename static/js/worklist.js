// The worklist at the keyboard: arrows move from case to case, Enter opens the one that has the focus, being a link.
const links = [...document.querySelectorAll("[data-worklist] tbody th a")];
const places = {
  ArrowDown: (now) => now + 1,
  ArrowUp: (now) => now - 1,
  Home: () => 0,
  End: () => links.length - 1,
};

document.addEventListener("keydown", (event) => {
  const move = places[event.key];
  if (!move || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const now = links.indexOf(document.activeElement);
  // In a field the arrows belong to the field; Home and End move only once a row has the focus.
  const inPage = document.activeElement === document.body || document.activeElement?.id === "main";
  if (now < 0 && !(inPage && event.key.startsWith("Arrow"))) return;
  const next = links[now < 0 ? (event.key === "ArrowUp" ? links.length - 1 : 0) : move(now)];
  if (!next) return;
  event.preventDefault();
  next.focus();
  next.closest("tr").scrollIntoView({ block: "nearest" });
});

// What is left empty does not clutter the address.
document.querySelector("[data-worklist-filters]")?.addEventListener("formdata", ({ formData }) => {
  for (const [name, value] of [...formData]) if (value === "" || (name === "order" && value === "newest")) formData.delete(name);
});
