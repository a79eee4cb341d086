// Notices above what they are about, with buttons that answer them.

// A line that stays until somebody has read it.
export function addNotice(notices, message, role = "status") {
  const line = document.createElement("div");
  line.className = "notice";
  line.setAttribute("role", role);
  const words = document.createElement("p");
  words.textContent = message;
  line.append(words);
  notices.append(line);
  return line;
}

export function addButton(line, words, onclick) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = words;
  button.addEventListener("click", onclick);
  line.append(button);
}
