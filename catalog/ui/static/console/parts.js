// Parts that several pages use.
import { root } from "./api.js";
import { html } from "./html.js";
import { useEffect, useRef, useState } from "./vendor/hooks.js";

const amounts = new Intl.NumberFormat(undefined, {
  minimumFractionDigits: 2,
  maximumFractionDigits: 20,
});
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export const amount = (price) => amounts.format(price);

export function Moment({ at }) {
  return html`<time datetime=${at}>${moments.format(new Date(at))}</time>`;
}

/** A link to a page of the console. */
export function Link({ to, children, ...rest }) {
  return html`<a href=${root + to} ...${rest}>${children}</a>`;
}

/** The heading of a page; it takes the focus when the page is opened, for screen readers. */
export function Heading({ children }) {
  const heading = useRef();
  useEffect(() => {
    document.title = `${heading.current.textContent} · catalog`;
    if (document.body.dataset.navigated) heading.current.focus();
  }, [children]);
  return html`<h1 tabindex="-1" ref=${heading}>${children}</h1>`;
}

/** What went wrong, if anything, with a button to try again if `retry` is given. */
export function Fault({ problem, retry }) {
  const [again, isBusy] = useAction(() => retry());
  if (!problem) return null;
  return html`<div role="alert" class="fault">
    <p>${problem.message}</p>
    ${retry && html`<button class="outline" aria-busy=${isBusy} onClick=${again}>Try again</button>`}
  </div>`;
}

const LIVE_STATES = {
  connecting: "Connecting …",
  live: "Live.",
  waiting: "The connection was lost; trying again …",
  gone: "Not live: load the page again.",
};

/** Whether a page follows the changes, as `follow` tells it. */
export function LiveState({ state, children }) {
  return html`<p class="status">
    <span class=${`dot ${state}`}></span>${" "}
    <span role="status">${LIVE_STATES[state]}</span>${" "} ${children}
  </p>`;
}

/** A labelled input with the error of its field. */
export function Field({ label, name, problem, hint, multiline, ...rest }) {
  const message = problem?.of?.(name);
  const described = message || hint ? `${name}-help` : undefined;
  const help = (message || hint) && html`<small id=${described}>${message ?? hint}</small>`;
  const shared = {
    id: name,
    name,
    "aria-invalid": message ? "true" : undefined,
    "aria-describedby": described,
    ...rest,
  };
  return html`<div>
    <label for=${name}>${label}</label>
    ${multiline ? html`<textarea ...${shared} />` : html`<input ...${shared} />`} ${help}
  </div>`;
}

/**
 * Run an action of the user, one at a time.
 *
 * @returns the function to call, whether it is running, and what went wrong last.
 */
export function useAction(action) {
  const [state, setState] = useState({ isBusy: false, problem: null });
  // Not the state, which a second click in the same moment would still see as it was.
  const isRunning = useRef(false);
  const run = async (...values) => {
    // A form that is sent again must not leave the page.
    values[0]?.preventDefault?.();
    if (isRunning.current) return;
    isRunning.current = true;
    setState({ isBusy: true, problem: null });
    let problem = null;
    try {
      await action(...values);
    } catch (failure) {
      problem = failure;
    }
    isRunning.current = false;
    setState({ isBusy: false, problem });
  };
  return [run, state.isBusy, state.problem];
}

/** Load something when a page is opened; `load` gets a signal that ends with the page. */
export function useLoaded(load, inputs) {
  const [state, setState] = useState({ value: null, problem: null });
  const reload = async (signal) => {
    try {
      setState({ value: await load(signal), problem: null });
    } catch (problem) {
      if (problem.name !== "AbortError") setState({ value: null, problem });
    }
  };
  useEffect(() => {
    const controller = new AbortController();
    reload(controller.signal);
    return () => controller.abort();
  }, inputs);
  return [state.value, state.problem, reload];
}

/** The fields of a submitted form, by name. */
export function fieldsOf(event) {
  event.preventDefault();
  return Object.fromEntries(new FormData(event.target));
}

/** A question before something that cannot be undone. */
export function Confirmation({ question, action, onConfirm, onClose }) {
  const dialog = useRef();
  useEffect(() => dialog.current.showModal(), []);
  return html`<dialog ref=${dialog} onClose=${onClose} aria-labelledby="question">
    <article>
      <p id="question">${question}</p>
      <footer>
        <button class="secondary" onClick=${() => dialog.current.close()}>Cancel</button>
        <button
          class="danger"
          onClick=${() => {
            dialog.current.close();
            onConfirm();
          }}
        >
          ${action}
        </button>
      </footer>
    </article>
  </dialog>`;
}
