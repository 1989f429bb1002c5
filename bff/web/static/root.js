/** The path that all URLs of this server begin with, such as `/assistant`; "" for none. */
export const ROOT = document.documentElement.dataset.root;
