// Pages are paths below the root, so that each can be linked, reloaded and read without the console.
import { root } from "./api.js";

const observers = new Set();

export function observeLocation(observer) {
  observers.add(observer);
  return () => observers.delete(observer);
}

/** The path below the root, and the query. */
export function place() {
  return {
    path: location.pathname.slice(root.length) || "/",
    query: new URLSearchParams(location.search),
  };
}

export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", root + path);
  scrollTo(0, 0);
  changed();
}

function changed() {
  for (const observer of observers) observer();
}

addEventListener("popstate", changed);

// The console answers links to its own pages; all others load as usual.
const OWN = /^\/($|products\/|sign-in$|import$|account$|users$)/;

/** Whether a target, a path below the root with or without a query, is a page of the console. */
export function isOwn(target) {
  return OWN.test(target.split(/[?#]/)[0]);
}

addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  const isPlain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey);
  if (!link || !isPlain || event.defaultPrevented || link.target || link.hasAttribute("download"))
    return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || !url.pathname.startsWith(`${root}/`) || url.hash) return;
  const path = url.pathname.slice(root.length);
  if (!isOwn(path)) return;
  event.preventDefault();
  go(path + url.search);
});
