// Fastify with mysql2: schemas for validating and rendering, prepared statements, one process a worker.
import cluster from "node:cluster";
import { createHmac, timingSafeEqual } from "node:crypto";

import Fastify from "fastify";
import mysql from "mysql2/promise";

const [port, workers] = process.argv.slice(2).map(Number);
const COLUMNS = "id, name, description, price, user_id, version, created_at, updated_at";

if (cluster.isPrimary) {
  for (let number = 0; number < workers; number += 1) cluster.fork();
  process.on("SIGTERM", () => process.exit(0));
} else {
  serve();
}

function callerOf(request) {
  const [scheme, token] = (request.headers.authorization ?? "").split(" ");
  const parts = (token ?? "").split(".");
  if (scheme !== "Bearer" || parts.length !== 3) return 0;
  const signature = createHmac("sha256", process.env.JWT_SECRET_KEY)
    .update(`${parts[0]}.${parts[1]}`)
    .digest();
  const given = Buffer.from(parts[2], "base64url");
  if (given.length !== signature.length || !timingSafeEqual(given, signature)) return 0;
  const claims = JSON.parse(Buffer.from(parts[1], "base64url"));
  return claims.exp < Date.now() / 1000 ? 0 : Number(claims.sub);
}

function refusal(reply, status) {
  return reply.code(status).send({ status });
}

function serve() {
  const pool = mysql.createPool({ uri: process.env.NODE_DATABASE, connectionLimit: 10, timezone: "Z" });
  const app = Fastify();
  const product = {
    type: "object",
    properties: {
      id: { type: "integer" },
      name: { type: "string" },
      description: { type: ["string", "null"] },
      price: { type: "number" },
      user_id: { type: "integer" },
      version: { type: "integer" },
      created_at: { type: "string", format: "date-time" },
      updated_at: { type: "string", format: "date-time" },
    },
  };
  const fields = {
    name: { type: "string", minLength: 1, maxLength: 512 },
    price: { type: "number", minimum: 0, maximum: 1e12 },
    description: { type: ["string", "null"] },
  };

  app.get(
    "/api/products",
    {
      schema: {
        querystring: {
          type: "object",
          properties: {
            limit: { type: "integer", minimum: 1, maximum: 200, default: 100 },
            cursor: { type: "integer" },
          },
        },
        response: {
          200: {
            type: "object",
            properties: {
              products: { type: "array", items: product },
              next: { type: ["string", "null"] },
            },
          },
        },
      },
    },
    async ({ query: { limit, cursor } }) => {
      const where = cursor === undefined ? "" : "WHERE id < ?";
      const values = cursor === undefined ? [String(limit + 1)] : [cursor, String(limit + 1)];
      const [rows] = await pool.execute(
        `SELECT ${COLUMNS} FROM products ${where} ORDER BY id DESC LIMIT ?`,
        values,
      );
      const products = rows.slice(0, limit);
      const last = products.at(-1);
      const next = rows.length > limit ? `/api/products?limit=${limit}&cursor=${last.id}` : null;
      return { products, next };
    },
  );

  app.post(
    "/api/products",
    {
      schema: {
        body: { type: "object", required: ["name", "price"], properties: fields },
        response: { 201: product },
      },
    },
    async (request, reply) => {
      const user = callerOf(request);
      if (!user) return refusal(reply, 401);
      const { name, price, description = null } = request.body;
      const now = new Date();
      const [result] = await pool.execute(
        "INSERT INTO products (name, description, price, user_id, version, created_at, updated_at)" +
          " VALUES (?, ?, ?, ?, 1, ?, ?)",
        [name, description, price, user, now, now],
      );
      reply.code(201);
      const id = result.insertId;
      return { id, name, description, price, user_id: user, version: 1, created_at: now, updated_at: now };
    },
  );

  app.get("/api/products/:id", { schema: { response: { 200: product } } }, async (request, reply) => {
    const [[row]] = await pool.execute(`SELECT ${COLUMNS} FROM products WHERE id = ?`, [
      request.params.id,
    ]);
    if (!row) return refusal(reply, 404);
    reply.header("ETag", `"${row.version}"`);
    return row;
  });

  app.patch(
    "/api/products/:id",
    { schema: { body: { type: "object", properties: fields }, response: { 200: product } } },
    async (request, reply) => {
      const user = callerOf(request);
      if (!user) return refusal(reply, 401);
      const connection = await pool.getConnection();
      try {
        await connection.beginTransaction();
        const [[row]] = await connection.execute(
          `SELECT ${COLUMNS} FROM products WHERE id = ? FOR UPDATE`,
          [request.params.id],
        );
        const expected = request.headers["if-match"];
        let status = 200;
        if (!row) status = 404;
        else if (row.user_id !== user) status = 403;
        else if (expected && expected !== `"${row.version}"`) status = 412;
        if (status !== 200) {
          await connection.rollback();
          return refusal(reply, status);
        }
        Object.assign(row, request.body, { version: row.version + 1, updated_at: new Date() });
        await connection.execute(
          "UPDATE products SET name = ?, description = ?, price = ?, version = ?, updated_at = ? WHERE id = ?",
          [row.name, row.description, row.price, row.version, row.updated_at, row.id],
        );
        await connection.commit();
        reply.header("ETag", `"${row.version}"`);
        return row;
      } finally {
        connection.release();
      }
    },
  );

  app.delete("/api/products/:id", async (request, reply) => {
    const [result] = await pool.execute("DELETE FROM products WHERE id = ? AND user_id = ?", [
      request.params.id,
      callerOf(request),
    ]);
    return result.affectedRows ? { id: Number(request.params.id) } : refusal(reply, 404);
  });

  app.listen({ port, host: "127.0.0.1", backlog: 2048 });
}
