// The journey with the client of @hey-api/openapi-ts.
import { client } from "./generated/client.gen";
import * as api from "./generated/sdk.gen";

const account = { username: process.env.CATALOG_USERNAME!, password: "correct horse" };
client.setConfig({ baseUrl: process.env.CATALOG_URL });

const email = `${account.username}@example.com`;
await api.signUp({ body: { ...account, email }, throwOnError: true });
const signedIn = await api.logIn({ body: account, throwOnError: true });
client.setConfig({ auth: signedIn.data.access_token });

const made: number[] = [];
let etag = "";
for (const name of ["Lamp", "Chair", "Table"]) {
  // Without a description, which is optional.
  const created = await api.createProduct({ body: { name, price: 24.9 }, throwOnError: true });
  if (!("id" in created.data)) throw new Error("no single product");
  made.push(created.data.id);
  etag = created.response.headers.get("ETag")!;
}

const two = await api.listProducts({ query: { ids: made.slice(0, 2) }, throwOnError: true });
const few = await api.listMyProducts({
  query: { fields: ["id", "name"], limit: 1 },
  throwOnError: true,
});
if (typeof two.data === "string" || typeof few.data === "string") throw new Error("no page");

let walked = 0;
let cursor: string | undefined;
do {
  const query = { limit: 2, cursor, sort: "price" as const };
  const page = await api.listMyProducts({ query, throwOnError: true });
  if (typeof page.data === "string") throw new Error("no page");
  walked += page.data.products.length;
  cursor = page.data.next_cursor ?? undefined;
} while (cursor);

const path = { product_id: made[2] };
const patch = { path, headers: { "If-Match": etag }, body: { price: 19.5 } };
const patched = await api.changeProduct({ ...patch, throwOnError: true });
const stale = await api.changeProduct(patch);
const deleted = await api.deleteProduct({ path, throwOnError: true });
const loggedOut = await api.logOut();
const after = await api.readAccount();

console.log(
  JSON.stringify({
    listed: two.data.products.map((product) => product.name),
    fields: Object.keys(few.data.products[0]),
    walked,
    patched: patched.data.price,
    stale: stale.error?.code,
    deleted: deleted.data.id === made[2],
    logged_out: loggedOut.response?.status,
    after: after.error?.code,
  }),
);
