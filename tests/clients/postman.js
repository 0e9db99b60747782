// Runs before each request of the collection: a new account with a product of its own, and the token
// that the request needs.
const base = pm.collectionVariables.get("baseUrl");
const send = (method, path, token, body) =>
  new Promise((resolve, reject) => {
    const header = { "Content-Type": "application/json" };
    if (token) header.Authorization = `Bearer ${token}`;
    const request = { url: base + path, method, header, body: { mode: "raw", raw: JSON.stringify(body) } };
    pm.sendRequest(request, (error, response) => (error ? reject(error) : resolve(response.json())));
  });

(async () => {
  const username = `postman${pm.info.requestId.slice(0, 8)}`;
  const account = { username, email: `${username}@example.com`, password: "correct horse battery staple" };
  const signedUp = await send("POST", "/api/auth/signup", null, account);
  const product = await send("POST", "/api/products", signedUp.access_token, { name: "Lamp", price: 1 });
  pm.variables.set("product_id", product.id);
  pm.variables.set("user_id", signedUp.id);
  const key = await send("POST", "/api/auth/keys", signedUp.access_token, { name: "Shop", scope: "read" });
  pm.variables.set("key_id", key.id);
  const { sessions } = await send("GET", "/api/auth/sessions", signedUp.access_token);
  pm.variables.set("session_id", sessions[0].id);
  const path = pm.request.url.getPath();
  if (path.startsWith("/api/users")) {
    const admin = { username: pm.variables.get("admin"), password: pm.variables.get("password") };
    const signedIn = await send("POST", "/api/auth/login", null, admin);
    pm.variables.set("bearerToken", signedIn.access_token);
  } else if (path === "/api/auth/refresh") {
    pm.variables.set("bearerToken", signedUp.refresh_token);
  } else {
    pm.variables.set("bearerToken", signedUp.access_token);
  }
})();
