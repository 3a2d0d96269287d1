// Makes elements, and says things to the user.

/** Makes an element; properties that begin with "on" are listeners, those with a hyphen and role are attributes. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Returns the element with this id. */
export function find(id) {
  return document.getElementById(id);
}

/** Tells screen readers something. */
export function announce(text) {
  find("announcer").textContent = text;
}

/** Shows a problem at the top of the page, or hides it for "". */
export function warn(text) {
  const banner = find("banner");
  banner.textContent = text;
  banner.hidden = !text;
}

/** Saves a file under a name. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Writes a number with at most so many digits after the point. */
export function short(value, digits = 2) {
  return String(Number(value.toFixed(digits)));
}
