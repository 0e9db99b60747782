// The journey with openapi-fetch, by the types of openapi-typescript.
import createClient from "openapi-fetch";
import type { paths } from "./generated/schema";

const account = { username: process.env.CATALOG_USERNAME!, password: "correct horse" };
// Lists are offered as CSV, too; this client never asks for it.
type Media = "application/json" | "application/problem+json";
const client = createClient<paths, Media>({ baseUrl: process.env.CATALOG_URL });

function must<T>(result: { data?: T; error?: unknown }): T {
  if (result.data === undefined) throw new Error(JSON.stringify(result.error));
  return result.data;
}

const email = `${account.username}@example.com`;
must(await client.POST("/api/auth/signup", { body: { ...account, email } }));
const { access_token } = must(await client.POST("/api/auth/login", { body: account }));
client.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${access_token}`);
  },
});

const made: number[] = [];
let etag = "";
for (const name of ["Lamp", "Chair", "Table"]) {
  // Without a description, which is optional.
  const created = await client.POST("/api/products", { body: { name, price: 24.9 } });
  const product = must(created);
  if (!("id" in product)) throw new Error("no single product");
  made.push(product.id);
  etag = created.response.headers.get("ETag")!;
}

const two = await client.GET("/api/products", { params: { query: { ids: made.slice(0, 2) } } });
const few = await client.GET("/api/products/my", {
  params: { query: { fields: ["id", "name"], limit: 1 } },
});

let walked = 0;
let cursor: string | undefined;
do {
  const query = { limit: 2, cursor, sort: "price" as const };
  const page = must(await client.GET("/api/products/my", { params: { query } }));
  walked += page.products.length;
  cursor = page.next_cursor ?? undefined;
} while (cursor);

const path = { product_id: made[2] };
const patch = { params: { path, header: { "If-Match": etag } }, body: { price: 19.5 } };
const patched = must(await client.PATCH("/api/products/{product_id}", patch));
const stale = await client.PATCH("/api/products/{product_id}", patch);
const deleted = must(await client.DELETE("/api/products/{product_id}", { params: { path } }));
const loggedOut = await client.POST("/api/auth/logout");
const after = await client.GET("/api/auth/me");

console.log(
  JSON.stringify({
    listed: must(two).products.map((product) => product.name),
    fields: Object.keys(must(few).products[0]),
    walked,
    patched: patched.price,
    stale: stale.error?.code,
    deleted: deleted.id === made[2],
    logged_out: loggedOut.response.status,
    after: after.error?.code,
  }),
);
