// Elements in one line each. Whatever is said becomes text: nothing here, or in this page, reads HTML.

/** Attributes that are functions listen to the event of that name; false, null and undefined are left out. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export function button(text, click, attributes = {}) {
  return make("button", { type: "button", click, ...attributes }, text);
}

/** What only a screen reader says. */
export function unseen(text) {
  return make("span", { class: "unseen" }, text);
}

export function find(id) {
  return document.getElementById(id);
}

/** To the clipboard, also where the page came over plain http. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { readonly: true, class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** A button that copies what `text` gives, and says so. */
export function copyButton(text, what) {
  const element = button("Copy", async () => {
    await copy(text());
    element.textContent = "Copied";
    announce(`${what} copied.`);
    setTimeout(() => element.replaceChildren("Copy", unseen(` ${what}`)), 2000);
  });
  element.append(unseen(` ${what}`));
  return element;
}

/** Said aloud where a screen reader listens, once it has nothing else to say. */
export function announce(text) {
  find("announcer").textContent = text;
}
