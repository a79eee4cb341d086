// Batches: an archive goes out with its progress shown, and what moves on the page is looked at now and then.
import { takeDrops } from "./dropping.js";
import { lookWhile } from "./looking.js";
import { csrfToken, whenSignedIn } from "./session.js";

const place = document.querySelector("[data-batch-place]");
const form = document.querySelector("[data-batch-form]");

if (form) handIn();
if (place) lookWhile(place, "[data-batch-moving]", look);

// --- What moves ------------------------------------------------------------------------------------------------
function look(fresh) {
  const before = place.querySelector("[data-state]")?.dataset.state;
  const after = fresh.querySelector("[data-state]")?.dataset.state;
  // Nothing is taken away from under somebody's hands.
  if (!place.querySelector("details.batch-cancel[open]") || before !== after) show(fresh);
  if (before !== after) tell(place.querySelector(".ribbon")?.textContent);
}

function show(fresh) {
  const open = [...place.querySelectorAll("details[open][data-key]")].map((each) => each.dataset.key);
  const scrolled = [...place.querySelectorAll("details[open] .batch-files")].map((each) => each.scrollTop);
  const key = document.activeElement?.closest("[data-key]")?.dataset.key;
  const held = key && place.contains(document.activeElement);
  place.replaceChildren(fresh);
  for (const each of open) place.querySelector(`details[data-key="${each}"]`)?.setAttribute("open", "");
  [...place.querySelectorAll("details[open] .batch-files")].forEach((each, at) => (each.scrollTop = scrolled[at] ?? 0));
  if (held) {
    const same = place.querySelector(`[data-key="${key}"]`);
    (same?.querySelector("summary") ?? same)?.focus({ preventScroll: true });
  }
}

function tell(words) {
  if (words) document.dispatchEvent(new CustomEvent("announce", { detail: `Batch: ${words}` }));
}

// --- Handing in ------------------------------------------------------------------------------------------------
function handIn() {
  const input = form.querySelector("input[type=file]");
  const sending = form.querySelector("[data-batch-sending]");
  const bar = sending.querySelector("progress");
  const sent = sending.querySelector("[data-batch-sent]");
  const refusal = form.querySelector("[data-batch-error]");
  const button = form.querySelector("button[type=submit]");
  let request = null;

  function send(file) {
    if (request) return;
    refuse("");
    const body = new FormData(form);
    body.set("archive", file);
    request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("X-Fragment", "1");
    request.setRequestHeader("X-CSRFToken", csrfToken());
    request.upload.onprogress = (event) => {
      document.dispatchEvent(new Event("activity"));
      bar.value = event.lengthComputable ? event.loaded / event.total : 0;
      sent.textContent = event.loaded < event.total
        ? `${megabytes(event.loaded)} of ${megabytes(event.total)} MB sent`
        : "Sent. The archive is being looked at.";
    };
    request.onload = () => finish(request.status, request.responseText, request.responseURL, file);
    request.onerror = request.ontimeout = () => finish(0, "", "", file);
    request.onabort = () => stop("It was not handed in.");
    sending.hidden = false;
    button.disabled = true;
    bar.value = 0;
    sent.textContent = `Sending ${file.name}`;
    request.send(body);
  }

  function finish(status, text, url, file) {
    if (status === 401) {
      stop("");
      whenSignedIn(() => send(file));
    } else if (status === 200) {
      // The page of the new batch answered.
      request = null;
      window.location.assign(url);
    } else if (status >= 400 && status < 500 && text.length < 500) {
      stop(text);
    } else {
      stop(status ? `The server could not take it (${status}). Try again.` : "The network failed on the way. Try again.");
    }
  }

  function stop(words) {
    request = null;
    sending.hidden = true;
    button.disabled = false;
    refuse(words);
  }

  function refuse(words) {
    refusal.textContent = words;
    refusal.hidden = !words;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.files.length) send(input.files[0]);
  });
  form.querySelector("[data-batch-stop]").addEventListener("click", () => request?.abort());

  takeDrops(form, (dropped) => {
    const files = [...dropped];
    if (files.length > 1) {
      refuse("Drop one ZIP archive. Single pictures are dropped on the bench or on a case.");
      return;
    }
    // The accession number may still have to be typed: the file is chosen, and sent by the button.
    const chosen = new DataTransfer();
    chosen.items.add(files[0]);
    input.files = chosen.files;
    button.focus();
  });
  window.addEventListener("beforeunload", (event) => {
    if (request) event.preventDefault();
  });
}

function megabytes(bytes) {
  return (bytes / 1_000_000).toFixed(bytes < 10_000_000 ? 1 : 0);
}
