// Names, roles and levels that Swagger UI leaves out, for screen readers; checked with axe.

const NAMES = {
  "#servers": () => "Server",
  "textarea.body-param__text": (field) => `Request body of ${operationOf(field)}`,
  ".opblock-section-request-body select": (field) => `Type of the body of ${operationOf(field)}`,
  ".responses-inner select": (field) => `Type of the response of ${operationOf(field)}`,
  ".parameters :is(select, input, textarea)": (field) =>
    field.closest("tr[data-param-name]")?.dataset.paramName,
  '.responses-table[role="region"]': (table) => `Responses of ${operationOf(table)}`,
};

const LEVELS = { "h3.opblock-tag": 2, ".models > h4": 2, ".opblock h4": 3, ".opblock h5": 4 };

// What is beside Swagger UI's main landmark.
const REGIONS = {
  ".information-container": "Description",
  ".scheme-container": "Server and authorization",
};

function operationOf(element) {
  const [method, path] = ["method", "path"].map(
    (part) => element.closest(".opblock")?.querySelector(`.opblock-summary-${part}`)?.textContent,
  );
  return `${method} ${path}`;
}

function mend(page) {
  for (const [selector, nameOf] of Object.entries(NAMES)) {
    for (const element of page.querySelectorAll(`:is(${selector}):not([aria-label])`)) {
      const name = element.type === "checkbox" ? null : nameOf(element);
      if (name) element.setAttribute("aria-label", name);
    }
  }
  for (const [selector, level] of Object.entries(LEVELS)) {
    for (const heading of page.querySelectorAll(`:is(${selector}):not([aria-level])`)) {
      heading.setAttribute("aria-level", level);
    }
  }
  for (const [selector, label] of Object.entries(REGIONS)) {
    const region = page.querySelector(`${selector}:not([role])`);
    region?.setAttribute("role", "region");
    region?.setAttribute("aria-label", label);
  }
  // A link inside of a button; the button does the same, and its address is shown when it is open.
  for (const link of page.querySelectorAll(".opblock-summary-control a[href]")) {
    link.removeAttribute("href");
  }
}

/** Mend the page now and whenever Swagger UI renders a part of it. */
export function makeAccessible(page) {
  const changes = { childList: true, subtree: true, attributes: true, attributeFilter: ["href"] };
  new MutationObserver(() => mend(page)).observe(page, changes);
  mend(page);
}
