// Pictures go out one by one, at most three at a time; each has its own progress and its own outcome.
import { takeDrops } from "./dropping.js";
import { fragment, parse, watch } from "./polling.js";
import { csrfToken, whenSignedIn } from "./session.js";

const AT_ONCE = 3;
const ROWS_OF_WAITING = 30;
const REFRESH = 150;
const SPEAK = 2000;
const form = document.querySelector("form[data-upload]");
if (form) start();

function start() {
  const list = document.querySelector("[data-upload-list]");
  const section = document.querySelector("[data-uploads]");
  const summary = section.querySelector("[data-uploads-summary]");
  const overall = section.querySelector("[data-uploads-progress]");
  const retryAll = section.querySelector("[data-retry-all]");
  const clear = section.querySelector("[data-clear-refusals]");
  const cards = document.querySelector("ul[data-cards]");
  const result = document.querySelector("[data-result]");
  const choice = form.querySelector("[data-case-choice]");

  const queue = [];
  const unsent = new Set();
  const arrived = [];
  const counts = { total: 0, accepted: 0, refused: 0 };
  let sending = 0;
  let paused = false;
  let shownCase = null;

  // --- choosing ----------------------------------------------------------------------------------------------
  function take(files) {
    const chosen = [...files];
    if (!chosen.length) return;
    if (!queue.length && !sending && !unsent.size) Object.assign(counts, { total: 0, accepted: 0, refused: 0 });
    const drop = {
      action: choice?.value || form.action,
      quickCase: "quick" in form.dataset && !choice?.value ? newId() : "",
      alone: chosen.length === 1,
    };
    counts.total += chosen.length;
    section.hidden = false;
    form.classList.add("compact");
    if (result) result.hidden = true;
    for (const file of chosen) queue.push({ file, drop, row: null });
    refresh();
    pump();
  }

  // Of a thousand that wait, the next few are shown; the others are a number.
  function draw() {
    for (const entry of queue.slice(0, ROWS_OF_WAITING)) rowOf(entry);
  }

  function rowOf(entry) {
    if (!entry.row) list.append((entry.row = rowFor(entry.file)));
    return entry.row;
  }

  function rowFor(file) {
    const row = document.createElement("li");
    row.className = "upload";
    row.innerHTML = `<p><span class="upload-name"></span><span class="state quiet">Waits to be sent</span></p><progress max="1" value="0"></progress>`;
    row.querySelector(".upload-name").textContent = file.name;
    row.querySelector("progress").setAttribute("aria-label", `Sent of ${file.name}`);
    return row;
  }

  // --- sending -----------------------------------------------------------------------------------------------
  function pump() {
    while (!paused && sending < AT_ONCE && queue.length) send(queue.shift());
    soon();
  }

  function send(entry) {
    sending += 1;
    const { file, drop } = entry;
    const row = rowOf(entry);
    const bar = row.querySelector("progress");
    const state = row.querySelector(".state");
    const body = new FormData();
    if (drop.quickCase) body.append("quick_case_id", drop.quickCase);
    body.append("reader", document.body.dataset.user);
    body.append("file", file);
    const request = new XMLHttpRequest();
    request.open("POST", drop.action);
    request.setRequestHeader("X-Fragment", "1");
    request.setRequestHeader("X-CSRFToken", csrfToken());
    request.upload.onprogress = (event) => {
      document.dispatchEvent(new Event("activity"));
      if (!event.lengthComputable) return;
      bar.value = event.loaded / event.total;
      state.textContent = event.loaded < event.total ? `Sending, ${Math.round(100 * bar.value)} %` : "Being checked";
    };
    request.onload = () => finish(entry, request.status, request.responseText);
    request.onerror = request.onabort = request.ontimeout = () => finish(entry, 0, "");
    state.textContent = "Sending";
    request.send(body);
  }

  function finish(entry, status, html) {
    sending -= 1;
    const outcome = parse(html).querySelector(".card, [data-refused]");
    if (status === 401 || (status === 403 && html.includes('"another_reader"'))) {
      hold(entry);
    } else if (outcome?.matches(".card")) {
      accept(entry, outcome, status === 200);
    } else if (outcome) {
      refuse(entry, outcome);
    } else {
      keep(entry, status);
    }
    pump();
  }

  // Signed out, or somebody else is signed in: the file goes back to the head of the line and waits with the others.
  function hold(entry) {
    paused = true;
    entry.row.querySelector("progress").value = 0;
    entry.row.querySelector(".state").textContent = "Waits until you are signed in";
    queue.unshift(entry);
    whenSignedIn(() => {
      paused = false;
      pump();
    });
  }

  function accept(entry, card, known) {
    counts.accepted += 1;
    shownCase = card.querySelector(".card-case");
    entry.row.remove();
    if (known) tellOf(card, "Was in this case already");
    arrived.push(card);
    if (entry.drop.alone && result) open(card.querySelector(".card-name").href);
  }

  function tellOf(card, words) {
    const line = document.createElement("p");
    line.className = "ai-short";
    line.textContent = words;
    card.querySelector(".card-state").append(line);
  }

  function refuse(entry, refusal) {
    counts.refused += 1;
    refusal.querySelector(".upload-name").textContent = entry.file.name;
    entry.row.replaceWith(refusal);
    list.prepend(refusal);
  }

  // The network or the server failed, not the file: it stays here and can be sent again.
  function keep(entry, status) {
    const { row } = entry;
    unsent.add(entry);
    row.classList.add("unsent");
    row.querySelector("progress").hidden = true;
    row.querySelector(".state").textContent = "Not sent";
    const line = document.createElement("p");
    line.textContent = status
      ? `The server could not take it (${status}). The file is kept here; try again. `
      : "The network failed on the way. The file is kept here; try again. ";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small-button";
    button.textContent = "Retry";
    button.setAttribute("aria-label", `Retry ${entry.file.name}`);
    button.addEventListener("click", () => retry(entry));
    line.append(button);
    row.append(line);
    list.prepend(row);
  }

  function retry(entry) {
    if (!unsent.delete(entry)) return;
    entry.row.remove();
    queue.push({ ...entry, row: null });
    refresh();
    pump();
  }

  // --- showing -----------------------------------------------------------------------------------------------
  async function open(url) {
    try {
      const panel = await fragment(url);
      result.replaceChildren(panel);
      result.hidden = false;
      result.scrollIntoView({ block: "nearest" });
      watch();
    } catch {
      // The card below leads to the same page.
    }
  }

  // What many outcomes change is drawn together, a few times a second.
  let timer = null;
  function soon() {
    timer ??= setTimeout(refresh, REFRESH);
  }

  function refresh() {
    clearTimeout(timer);
    timer = null;
    draw();
    place();
    tell();
  }

  function place() {
    if (!arrived.length) return;
    for (const card of arrived) cards.querySelector(`[data-image="${card.dataset.image}"]`)?.remove();
    cards.prepend(...arrived.splice(0).reverse());
    watch();
  }

  let told = 0;
  let later = null;
  function tell() {
    const { total, accepted, refused } = counts;
    const done = accepted + refused;
    const parts = [`${accepted} of ${total} accepted`];
    if (refused) parts.push(`${refused} refused`);
    if (unsent.size) parts.push(`${unsent.size} not sent`);
    if (queue.length) parts.push(`${queue.length} to go`);
    summary.textContent = `${parts.join(", ")}. `;
    if (shownCase && "quick" in form.dataset) {
      const link = shownCase.cloneNode(true);
      link.className = "";
      link.textContent = `Open case ${shownCase.textContent}`;
      summary.append(link);
    }
    overall.value = total ? done / total : 0;
    overall.hidden = done === total || total < 2;
    retryAll.hidden = unsent.size < 2;
    clear.hidden = !refused || !list.querySelector("[data-refused]");
    clearTimeout(later);
    if (done === total || Date.now() - told > SPEAK) speak(parts);
    else later = setTimeout(speak, SPEAK, parts);
  }

  function speak(parts) {
    told = Date.now();
    document.dispatchEvent(new CustomEvent("announce", { detail: parts.join(", ") }));
  }

  // --- wiring ------------------------------------------------------------------------------------------------
  for (const input of form.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      take(input.files);
      input.value = "";
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  retryAll.addEventListener("click", () => [...unsent].forEach(retry));
  clear.addEventListener("click", () => {
    for (const refusal of list.querySelectorAll("[data-refused]")) refusal.remove();
    clear.hidden = true;
  });

  takeDrops(form, take);
  window.addEventListener("beforeunload", (event) => {
    if (queue.length || sending || unsent.size) event.preventDefault();
  });
}

// crypto.randomUUID exists in secure contexts only; a laboratory's own network may be plain http.
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
