import { json, request, root, session, untilRetry } from "../api.js";
import { html } from "../html.js";
import { follow } from "../live.js";
import {
  Confirmation, Fault, Field, Heading, LiveState, Moment, amount, fieldsOf, useAction,
} from "../parts.js";
import { go } from "../router.js";
import { useEffect, useLayoutEffect, useRef, useState } from "../vendor/hooks.js";

/** A product, and for its owner or an administrator the means to change it. */
export function ProductPage({ id, initial }) {
  const [state, setState] = useState(initial ?? {});
  const [liveState, setLiveState] = useState("connecting");
  const [isEditing, setEditing] = useState(false);
  const [isDeleting, setDeleting] = useState(false);
  const { product, etag, change, problem } = state;

  const read = async (signal) => {
    const response = await request("GET", `/api/products/${id}`, { signal });
    setState({
      product: await response.json(),
      etag: response.headers.get("ETag"),
      change: response.headers.get("Catalog-Change"),
    });
  };
  const load = (signal) =>
    read(signal).catch((problem) => {
      if (problem.name !== "AbortError") setState({ problem });
    });
  // What is shown stays until the new version is there.
  const refresh = (signal) =>
    read(signal).catch(async (problem) => {
      if (problem.name === "AbortError" || signal.aborted) return;
      if (problem.status === 404) return setState({ problem });
      await untilRetry(problem);
      if (!signal.aborted) refresh(signal);
    });
  useEffect(() => {
    if (product) return undefined;
    const controller = new AbortController();
    load(controller.signal);
    return () => controller.abort();
  }, [id]);

  // A form that is open keeps the version it began with; saving it then finds the difference.
  useEffect(() => {
    if (!change || isEditing) return undefined;
    const controller = new AbortController();
    const stop = follow(
      change,
      (event) => {
        if (String(event.id) !== id) return;
        if (event.type === "deleted") setState({ problem: { status: 404 } });
        else refresh(controller.signal);
      },
      (told) => {
        setLiveState(told);
        // One product is read again at once, and followed from there.
        if (told === "gone") refresh(controller.signal);
      },
    );
    return () => {
      stop();
      controller.abort();
    };
  }, [change, isEditing]);

  const [remove, isRemoving, refusal] = useAction(async () => {
    await json("DELETE", `/api/products/${id}`, undefined, { "If-Match": etag });
    go("/");
  });

  if (problem?.status === 404)
    return html`<${Heading}>This product does not exist<//><p><a href=${`${root}/`}>All products</a></p>`;
  if (problem)
    return html`<${Heading}>Product ${id}<//><${Fault} problem=${problem} retry=${load} />`;
  if (!product) return html`<p aria-busy="true">Loading …</p>`;

  const { user } = session;
  const mayChange = user && (user.id === product.user_id || user.role === "admin");
  if (isEditing)
    return html`<${Edit}
      product=${product}
      etag=${etag}
      onDone=${() => {
        setEditing(false);
        load();
      }}
    />`;
  return html`<article>
    <${Heading}><bdi>${product.name}</bdi><//>
    <p class="price">${amount(product.price)}</p>
    ${product.description && html`<p class="description"><bdi>${product.description}</bdi></p>`}
    <p>
      <small>
        Created <${Moment} at=${product.created_at} /> by${" "}
        <a href=${`${root}/?user_id=${product.user_id}`}>user ${product.user_id}</a>, changed
        ${" "}<${Moment} at=${product.updated_at} />, version ${product.version}
      </small>
    </p>
    <${LiveState} state=${liveState} />
    <${Fault} problem=${refusal} />
    ${mayChange &&
    html`<div class="actions">
      <button onClick=${() => setEditing(true)}>Edit</button>
      <button class="danger outline" aria-busy=${isRemoving} onClick=${() => setDeleting(true)}>
        Delete
      </button>
    </div>`}
    ${isDeleting &&
    html`<${Confirmation}
      question=${`Delete “${product.name}”? This cannot be undone.`}
      action="Delete"
      onConfirm=${remove}
      onClose=${() => setDeleting(false)}
    />`}
  </article>`;
}

/** What fields of a form, some or all, say about a product. */
function productOf({ price, description, ...fields }) {
  if (price !== undefined) fields.price = Number(price);
  if (description !== undefined) fields.description = description === "" ? null : description;
  return fields;
}

/** The members of one object that the other one does not have or has otherwise. */
function differenceOf(values, others) {
  return Object.fromEntries(
    Object.entries(values).filter(([name, value]) => value !== others[name]),
  );
}

// Only what the inputs begin with: what is typed stays when the page is drawn again.
function ProductFields({ product = {}, problem }) {
  return html`<${Field}
      label="Name" name="name" required defaultValue=${product.name} problem=${problem}
    />
    <${Field}
      label="Price" name="price" type="number" min="0" max="1000000000000" step="any" required
      defaultValue=${product.price} problem=${problem}
    />
    <${Field}
      label="Description" name="description" multiline rows="5"
      defaultValue=${product.description ?? ""} problem=${problem}
    />`;
}

function Edit({ product, etag, onDone }) {
  // The version that the form began with, and the one that is known to be saved.
  const [basis, setBasis] = useState({ product, etag });
  const [saved, setSaved] = useState(basis);
  const [conflict, setConflict] = useState(null);
  const form = useRef();
  const shown = useRef();
  // Inputs do not show every text as it is: those of one line drop line breaks, and the others write
  // all of them as LF. So a field is changed if it is not as it was shown.
  useLayoutEffect(() => {
    shown.current = Object.fromEntries(new FormData(form.current));
  }, [basis]);
  const [save, isBusy, problem] = useAction(async (event) => {
    const changed = productOf(differenceOf(fieldsOf(event), shown.current));
    const { name, price, description } = basis.product;
    const mine = { name, price, description, ...changed };
    const changes = differenceOf(mine, saved.product);
    try {
      await json("PATCH", `/api/products/${product.id}`, changes, { "If-Match": saved.etag });
    } catch (refusal) {
      if (refusal.status !== 412) throw refusal;
      // Changed meanwhile: show both versions; saving again is conditional on the other one.
      const response = await request("GET", `/api/products/${product.id}`);
      const theirs = await response.json();
      setConflict({ mine, theirs });
      setSaved({ product: theirs, etag: response.headers.get("ETag") });
      return;
    }
    onDone();
  });
  return html`<article>
    <${Heading}>Edit ${product.name}<//>
    ${conflict &&
    html`<${Conflict}
      ...${conflict}
      onTheirs=${() => {
        setBasis(saved);
        setConflict(null);
      }}
      onMine=${() => setConflict(null)}
    />`}
    <form onSubmit=${save} key=${basis.etag} ref=${form}>
      <${ProductFields} product=${basis.product} problem=${problem} />
      <${Fault} problem=${problem} />
      <div class="actions">
        <button aria-busy=${isBusy} disabled=${Boolean(conflict)}>Save</button>
        <button type="button" class="secondary outline" onClick=${onDone}>Cancel</button>
      </div>
    </form>
  </article>`;
}

function Conflict({ mine, theirs, onMine, onTheirs }) {
  const row = (label, name, show = (value) => value ?? "–") => html`<tr
    class=${mine[name] === theirs[name] ? undefined : "differs"}
  >
    <th scope="row">${label}</th>
    <td><bdi>${show(mine[name])}</bdi></td>
    <td><bdi>${show(theirs[name])}</bdi></td>
  </tr>`;
  return html`<section class="conflict" role="alert">
    <p>This product was changed while you were editing it. Nothing is saved yet.</p>
    <table>
      <thead>
        <tr><td></td><th scope="col">Yours</th><th scope="col">Saved, version ${theirs.version}</th></tr>
      </thead>
      <tbody>
        ${row("Name", "name")} ${row("Price", "price", amount)} ${row("Description", "description")}
      </tbody>
    </table>
    <div class="actions">
      <button onClick=${onMine}>Keep mine</button>
      <button class="secondary" onClick=${onTheirs}>Take the saved one</button>
    </div>
  </section>`;
}

const newKey = () => crypto.randomUUID?.() ?? String(Math.random());

/** A form for a new product. */
export function NewProduct() {
  // One key for each content, so that sending it again after a lost response makes no second product.
  const keys = useRef({});
  const [create, isBusy, problem] = useAction(async (event) => {
    const product = productOf(fieldsOf(event));
    const key = (keys.current[JSON.stringify(product)] ??= newKey());
    const created = await json("POST", "/api/products", product, { "Idempotency-Key": key });
    go(`/products/${created.id}`);
  });
  return html`<article>
    <${Heading}>New product<//>
    <form onSubmit=${create}>
      <${ProductFields} problem=${problem} />
      <${Fault} problem=${problem} />
      <button aria-busy=${isBusy}>Create</button>
    </form>
  </article>`;
}
