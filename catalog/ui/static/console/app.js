// The console: a client of the API that shows the catalog live.
import { logOut, observe, resume, root, session } from "./api.js";
import { html } from "./html.js";
import { Fault, Heading, Link, useAction } from "./parts.js";
import { go, isOwn, observeLocation, place } from "./router.js";
import { useEffect, useErrorBoundary, useReducer } from "./vendor/hooks.js";
import { render } from "./vendor/preact.js";
import { Account } from "./views/account.js";
import { Import } from "./views/import.js";
import { NewProduct, ProductPage } from "./views/product.js";
import { ProductList } from "./views/product_list.js";
import { SignIn } from "./views/sign_in.js";
import { Users } from "./views/users.js";

const host = document.getElementById("console");

// The products that the page came with, for the first view only.
let initialPage = JSON.parse(host.dataset.page ?? "null");

function takeInitialPage() {
  const page = initialPage;
  initialPage = null;
  return page;
}

function View() {
  const { path, query } = place();
  const product = /^\/products\/([1-9][0-9]*)$/.exec(path);
  if (path === "/")
    return html`<${ProductList} key=${`${query}`} query=${query} initial=${takeInitialPage()} />`;
  if (product)
    return html`<${ProductPage} key=${path} id=${product[1]} initial=${takeInitialPage()} />`;
  if (path === "/sign-in") {
    const to = query.get("to") ?? "/";
    return html`<${SignIn} onward=${isOwn(to) ? to : "/"} />`;
  }
  if (!session.isKnown) return html`<p aria-busy="true">Signing in …</p>`;
  if (!session.user) return html`<${SignIn} onward=${path} />`;
  if (path === "/products/new") return html`<${NewProduct} />`;
  if (path === "/import") return html`<${Import} />`;
  if (path === "/account") return html`<${Account} />`;
  if (path === "/users" && session.user.role === "admin") return html`<${Users} />`;
  return html`<${Heading}>There is no such page<//>
    <p><${Link} to="/">All products<//></p>`;
}

function Navigation() {
  const { path, query } = place();
  const { user } = session;
  const [leave, isLeaving, problem] = useAction(async () => {
    await logOut();
    go("/");
  });
  const here = (target) => (path + (query.size ? `?${query}` : "") === target ? "page" : undefined);
  const item = (to, text) =>
    html`<li><${Link} to=${to} aria-current=${here(to)}>${text}<//></li>`;
  return html`<header class="container">
    <nav aria-label="Console">
      <ul>
        <li>
          <${Link} to="/" class="brand"><strong>catalog</strong><//>
        </li>
      </ul>
      <ul>
        ${item("/", "Products")}
        ${user && item(`/?user_id=${user.id}`, "Mine")} ${user && item("/products/new", "New")}
        ${user && item("/import", "Import")} ${user?.role === "admin" && item("/users", "Users")}
        ${user && item("/account", user.username)}
        <li>
          ${user &&
          html`<button class="outline secondary" aria-busy=${isLeaving} onClick=${leave}>
            Log out
          </button>`}
          ${!user && session.isKnown && html`<${Link} to="/sign-in" role="button">Sign in<//>`}
          ${!session.isKnown && html`<span aria-busy="true">Signing in …</span>`}
        </li>
      </ul>
    </nav>
    <${Fault} problem=${problem ?? session.problem} />
  </header>`;
}

function Console() {
  const [, update] = useReducer((count) => count + 1, 0);
  const [failure, reset] = useErrorBoundary();
  useEffect(() => {
    const stops = [
      observe(update),
      observeLocation(() => {
        document.body.dataset.navigated = "true";
        reset();
        update();
      }),
    ];
    resume();
    return () => stops.forEach((stop) => stop());
  }, []);
  return html`<a class="skip" href="#main">Skip to the content</a>
    <${Navigation} />
    <main class="container" id="main">
      ${failure ? html`<${Fault} problem=${failure} />` : html`<${View} />`}
    </main>
    <footer class="container">
      <small>
        catalog ${document.body.dataset.version} ·
        <a href=${`${root}/docs`}>API documentation</a> ·
        <a href=${`${root}/openapi.json`}>OpenAPI</a> ·
        <a href=${`${root}/readyz`}>Health</a>
      </small>
    </footer>`;
}

host.replaceChildren();
render(html`<${Console} />`, host);
