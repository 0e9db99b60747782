import { json, request, root, session, untilRetry } from "../api.js";
import { html } from "../html.js";
import { follow } from "../live.js";
import {
  Confirmation, Fault, Field, Heading, LiveState, Moment, amount, fieldsOf, useAction,
} from "../parts.js";
import { go } from "../router.js";
import { useEffect, useState } from "../vendor/hooks.js";

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

/** What a form's fields say about a product. */
function productOf({ name, price, description }) {
  return { name, price: Number(price), description: description === "" ? null : description };
}

function ProductFields({ product = {}, problem }) {
  return html`<${Field} label="Name" name="name" required value=${product.name} problem=${problem} />
    <${Field}
      label="Price" name="price" type="number" min="0" max="1000000000000" step="any" required
      value=${product.price} problem=${problem}
    />
    <${Field}
      label="Description" name="description" multiline rows="5"
      value=${product.description ?? ""} problem=${problem}
    />`;
}

function Edit({ product, etag, onDone }) {
  const [draft, setDraft] = useState(product);
  const [basis, setBasis] = useState(etag);
  const [conflict, setConflict] = useState(null);
  const [save, isBusy, problem] = useAction(async (event) => {
    const mine = productOf(fieldsOf(event));
    setDraft({ ...draft, ...mine });
    try {
      await json("PATCH", `/api/products/${product.id}`, mine, { "If-Match": basis });
    } catch (refusal) {
      if (refusal.status !== 412) throw refusal;
      // Changed meanwhile: show both versions; saving again is conditional on the other one.
      const response = await request("GET", `/api/products/${product.id}`);
      setConflict({ mine, theirs: await response.json() });
      setBasis(response.headers.get("ETag"));
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
        setDraft(conflict.theirs);
        setConflict(null);
      }}
      onMine=${() => setConflict(null)}
    />`}
    <form onSubmit=${save} key=${draft.version}>
      <${ProductFields} product=${draft} problem=${problem} />
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

/** A form for a new product. */
export function NewProduct() {
  // One key for this form, so that sending it again after a lost response makes no second product.
  const [key] = useState(() => crypto.randomUUID?.() ?? String(Math.random()));
  const [create, isBusy, problem] = useAction(async (event) => {
    const created = await json("POST", "/api/products", productOf(fieldsOf(event)), {
      "Idempotency-Key": key,
    });
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
