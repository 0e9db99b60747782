// The journey with the functions of orval, which use fetch.
import * as api from "./generated/catalog";

const account = { username: process.env.CATALOG_USERNAME!, password: "correct horse" };
const json = { "Content-Type": "application/json" };

function must<T extends { status: number }, S extends number>(
  result: T,
  status: S,
): Extract<T, { status: S }> {
  if (result.status !== status) throw new Error(JSON.stringify(result));
  return result as unknown as Extract<T, { status: S }>;
}

const email = `${account.username}@example.com`;
must(await api.signUp({ ...account, email }), 201);
const { access_token } = must(await api.logIn(account), 200).data;
const headers = { Authorization: `Bearer ${access_token}` };

const made: number[] = [];
let etag = "";
for (const name of ["Lamp", "Chair", "Table"]) {
  // Without a description, which is optional. The body's type is the caller's to say, where an
  // operation takes several.
  const body = { name, price: 24.9 };
  const created = must(
    await api.createProduct(body, undefined, { headers: { ...headers, ...json } }),
    201,
  );
  made.push(created.data.id);
  etag = created.headers.get("ETag")!;
}

function products(page: api.listProductsResponse | api.listMyProductsResponse): api.ProductPage {
  if (page.status !== 200 || typeof page.data === "string") throw new Error(JSON.stringify(page));
  return page.data;
}

const two = products(await api.listProducts({ ids: made.slice(0, 2) }));
const few = products(await api.listMyProducts({ fields: ["id", "name"], limit: 1 }, { headers }));

let walked = 0;
let cursor: string | undefined;
do {
  const query = { limit: 2, cursor, sort: "price" as const };
  const page = products(await api.listMyProducts(query, { headers }));
  walked += page.products.length;
  cursor = page.next_cursor ?? undefined;
} while (cursor);

const conditional = { headers: { ...headers, "If-Match": etag } };
const patched = must(await api.changeProduct(made[2], { price: 19.5 }, conditional), 200);
const stale = must(await api.changeProduct(made[2], { price: 19.5 }, conditional), 412);
const deleted = must(await api.deleteProduct(made[2], { headers }), 200);
const loggedOut = must(await api.logOut({ headers }), 204);
const after = must(await api.readAccount({ headers }), 401);

console.log(
  JSON.stringify({
    listed: two.products.map((product) => product.name),
    fields: Object.keys(few.products[0]),
    walked,
    patched: patched.data.price,
    stale: stale.data.code,
    deleted: deleted.data.id === made[2],
    logged_out: loggedOut.status,
    after: after.data.code,
  }),
);
