import { json, request, root, session } from "../api.js";
import { html } from "../html.js";
import { follow } from "../live.js";
import { Fault, Heading, Link, LiveState, Moment, amount, fieldsOf, useAction } from "../parts.js";
import { go } from "../router.js";
import { useEffect, useRef, useState } from "../vendor/hooks.js";

const FIELDS = "id,name,price,user_id,created_at,version";
const PAGE_SIZE = 30;

// Parameters with which a new product may not belong to the list, or not to its beginning.
const FILTERS = ["q", "min_price", "max_price", "ids", "ids[]", "key", "cursor"];

// Parameters that the page ignores, as the service does when it sends the first one.
const FORM_PARAMETERS = ["fields", "fields[]", "format", "total", "bom", "guard"];

const SORTS = [
  ["-id", "Newest first"],
  ["id", "Oldest first"],
  ["name", "Name, A to Z"],
  ["-name", "Name, Z to A"],
  ["price", "Price, low to high"],
  ["-price", "Price, high to low"],
];

/** The order of a list, as one of `SORTS`: ids are given in the order of creation. */
const orderOf = (query) => (query.get("sort") || "-id").replace("created_at", "id");

/** All products that match the query, as an endless list that is kept up to date. */
export function ProductList({ query, initial }) {
  const [products, setProducts] = useState(initial?.products ?? []);
  const [next, setNext] = useState(initial ? initial.next : firstUrl(query));
  const [since, setSince] = useState(initial?.change ?? null);
  const [state, setState] = useState("connecting");
  const [news, setNews] = useState("");
  // New products belong at the top of the newest first; elsewhere their place is not known.
  const isNewestFirst = orderOf(query) === "-id";
  const isFiltered = FILTERS.some((name) => query.getAll(name).some(Boolean));
  const owner = query.get("user_id");

  const [more, isLoading, problem] = useAction(async () => {
    const response = await request("GET", next);
    const page = await response.json();
    const known = new Set(products.map((product) => product.id));
    setProducts([...products, ...page.products.filter((product) => !known.has(product.id))]);
    setNext(page.next?.slice(page.next.indexOf("/api/")));
    setSince(since ?? response.headers.get("Catalog-Change"));
  });

  useEffect(() => {
    if (!since) {
      more();
      return undefined;
    }
    return follow(since, apply, setState);
  }, [since]);

  function apply({ type, id, product }) {
    const isOurs = product && (!owner || String(product.user_id) === owner);
    if (type === "created" && isOurs) {
      if (isNewestFirst && !isFiltered) {
        setProducts((shown) =>
          shown.some((each) => each.id === id) ? shown : [{ ...product, isNew: true }, ...shown],
        );
        setNews(`New: ${product.name}`);
      } else {
        setNews("There are new products. Load the page again to see them.");
      }
    }
    if (type === "updated" && product) {
      setProducts((shown) =>
        shown.map((each) => (each.id === id ? { ...product, isNew: true } : each)),
      );
    }
    if (type === "deleted") setProducts((shown) => shown.filter((each) => each.id !== id));
  }

  const isEmpty = !products.length && !next && !isLoading && !problem;
  return html`<${Heading}>${owner ? `Products of user ${owner}` : "Products"}<//>
    <${Filters} query=${query} />
    <${LiveState} state=${state}><span role="status">${news}</span><//>
    <table class="products">
      <thead>
        <tr><th scope="col">Name</th><th scope="col" class="number">Price</th><th scope="col">Created</th></tr>
      </thead>
      <tbody>
        ${products.map((product) => html`<${Row} key=${product.id} product=${product} />`)}
      </tbody>
    </table>
    ${isEmpty && html`<${Empty} isFiltered=${isFiltered || owner} />`}
    <${Fault} problem=${problem} />
    ${next && html`<${More} load=${more} isLoading=${isLoading} hasFailed=${problem} />`}
    <p>
      <small>
        Export: <a href=${exportUrl(query, "csv")} download>CSV</a>,
        ${" "}<a href=${exportUrl(query, "ndjson")} download>NDJSON</a>
      </small>
    </p>`;
}

/** Which products a page's query selects, without what says how a list is to be written. */
function selectionOf(query) {
  const params = new URLSearchParams(query);
  for (const name of FORM_PARAMETERS) params.delete(name);
  return params;
}

function firstUrl(query) {
  const params = selectionOf(query);
  params.set("fields", FIELDS);
  params.set("limit", query.get("limit") || PAGE_SIZE);
  return `/api/products?${params}`;
}

function exportUrl(query, format) {
  const params = selectionOf(query);
  for (const name of ["cursor", "limit"]) params.delete(name);
  params.set("format", format);
  return `${root}/api/products?${params}`;
}

function Row({ product }) {
  return html`<tr class=${product.isNew ? "new" : undefined}>
    <td>
      <${Link} to=${`/products/${product.id}`}><bdi>${product.name}</bdi><//>
    </td>
    <td class="number">${amount(product.price)}</td>
    <td><${Moment} at=${product.created_at} /></td>
  </tr>`;
}

/** Loads more when it comes into view; a button for keyboards, and after errors. */
function More({ load, isLoading, hasFailed }) {
  const end = useRef();
  useEffect(() => {
    if (isLoading || hasFailed) return undefined;
    const observer = new IntersectionObserver(
      ([entry]) => entry.isIntersecting && load(),
      { rootMargin: "400px" },
    );
    observer.observe(end.current);
    return () => observer.disconnect();
  });
  return html`<p ref=${end}>
    <button class="outline" aria-busy=${isLoading} onClick=${load}>
      ${hasFailed ? "Try again" : "Load more"}
    </button>
  </p>`;
}

function Filters({ query }) {
  const submit = (event) => {
    // A search keeps what the form does not have, such as ids and user_id.
    const params = selectionOf(query);
    params.delete("cursor");
    for (const [name, value] of Object.entries(fieldsOf(event))) {
      if (value === "") params.delete(name);
      else params.set(name, value);
    }
    if (params.get("sort") === "-id") params.delete("sort");
    go(params.size ? `/?${params}` : "/");
  };
  const value = (name) => query.get(name) ?? "";
  return html`<search><form class="filters" onSubmit=${submit}>
    <input type="search" name="q" aria-label="Search" placeholder="Search" value=${value("q")} />
    <input
      type="number" name="min_price" min="0" step="any"
      aria-label="Lowest price" placeholder="Price from" value=${value("min_price")}
    />
    <input
      type="number" name="max_price" min="0" step="any"
      aria-label="Highest price" placeholder="Price to" value=${value("max_price")}
    />
    <select name="sort" aria-label="Order">
      ${SORTS.map(
        ([name, text]) =>
          html`<option value=${name} selected=${name === orderOf(query)}>${text}</option>`,
      )}
    </select>
    <button>Show</button>
  </form></search>`;
}

function Empty({ isFiltered }) {
  const [load, isBusy, problem] = useAction(async () => {
    const { SAMPLE } = await import("../sample.js");
    const lines = SAMPLE.map((product) => JSON.stringify(product)).join("\n");
    await request("POST", "/api/products", {
      headers: { "Content-Type": "application/x-ndjson" },
      body: lines,
    });
  });
  if (isFiltered) return html`<p>No product matches.</p>`;
  return html`<article>
    <p>The catalog is empty.</p>
    ${session.user?.role === "admin" &&
    html`<button aria-busy=${isBusy} onClick=${load}>Load sample data</button>`}
    <${Fault} problem=${problem} />
  </article>`;
}
