// The API, as any other client uses it; only the sign-in goes through the console's own paths, which
// keep the refresh token in a cookie that scripts cannot read.

export const root = document.body.dataset.root;

const SESSION = "/console/session";
const HINT = "catalog-signed-in"; // tells a new page that there is a cookie, which it cannot see

/** An error response: problem details (RFC 9457), or a network failure with status 0. */
export class Problem extends Error {
  constructor(status, members) {
    super(members.detail ?? members.title ?? `The service answered ${status}.`);
    this.status = status;
    this.members = members;
  }

  get code() {
    return this.members.code;
  }

  /** The message of a field of the form, if the error names it. */
  of(field) {
    return this.members.errors?.find((error) => error.pointer === `/${field}`)?.message;
  }
}

async function send(method, path, { headers = {}, body, signal } = {}) {
  let response;
  try {
    response = await fetch(root + path, { method, headers, body, signal, cache: "no-cache" });
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    throw new Problem(0, { code: "offline", detail: "The service cannot be reached." });
  }
  if (response.ok) return response;
  throw new Problem(response.status, await response.json().catch(() => ({})));
}

/** The account that is signed in, and its access token. */
export const session = { user: null, token: null, isKnown: !localStorage.getItem(HINT) };

const observers = new Set();

export function observe(observer) {
  observers.add(observer);
  return () => observers.delete(observer);
}

function become({ user, access_token: token }) {
  Object.assign(session, { user, token, isKnown: true });
  if (user) localStorage.setItem(HINT, user.id);
  else localStorage.removeItem(HINT);
  for (const observer of observers) observer();
}

async function useSession(method, path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return send(method, SESSION + path, { headers, body: JSON.stringify(body) });
}

export async function logIn(credentials) {
  become(await (await useSession("POST", "", credentials)).json());
}

export async function signUp(account) {
  become(await (await useSession("POST", "/account", account)).json());
}

export async function logOut() {
  await useSession("DELETE", "").catch((problem) => {
    if (problem.status !== 401) throw problem;
  });
  become({ user: null, access_token: null });
}

let renewal = null;

/** Get a new access token; however many requests wait for it, one is asked for. */
export function renew() {
  renewal ??= useSession("POST", "/refresh")
    .then((response) => response.json())
    .then(become)
    .catch((problem) => {
      if (problem.status === 401) become({ user: null, access_token: null });
      else throw problem;
    })
    .finally(() => {
      renewal = null;
    });
  return renewal;
}

/** Resume the session of an earlier page, if there was one. */
export async function resume() {
  if (!localStorage.getItem(HINT)) return;
  await renew().catch(() => become({ user: null, access_token: null }));
}

// Another tab signed in or out.
addEventListener("storage", (event) => {
  if (event.key !== HINT) return;
  if (event.newValue) renew().catch(() => {});
  else if (session.user) become({ user: null, access_token: null });
});

/** Send a request with the access token, if there is one; it is renewed when it has expired. */
export async function request(method, path, options = {}) {
  const attempt = () => {
    const authorization = session.token ? { Authorization: `Bearer ${session.token}` } : {};
    return send(method, path, { ...options, headers: { ...authorization, ...options.headers } });
  };
  try {
    return await attempt();
  } catch (problem) {
    if (problem.status !== 401 || !session.token) throw problem;
    await renew();
    if (!session.token) throw problem;
    return attempt();
  }
}

/** Send JSON, and return the response's JSON; null if it has no content. */
export async function json(method, path, value, headers = {}) {
  const options = { headers: { ...headers } };
  if (value !== undefined) {
    options.body = JSON.stringify(value);
    options.headers["Content-Type"] ??= "application/json";
  }
  const response = await request(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** Upload a file with its progress, which fetch does not report. */
export async function upload(path, file, mediaType, onProgress) {
  // So that the token does not expire in the first moments of a long upload.
  await renew();
  return new Promise((resolve, reject) => {
    const transfer = new XMLHttpRequest();
    transfer.open("POST", root + path);
    transfer.setRequestHeader("Content-Type", mediaType);
    transfer.setRequestHeader("Authorization", `Bearer ${session.token}`);
    transfer.responseType = "json";
    transfer.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    transfer.onload = () => {
      if (transfer.status < 300) resolve(transfer.response);
      else reject(new Problem(transfer.status, transfer.response ?? {}));
    };
    transfer.onerror = () => {
      reject(new Problem(0, { detail: "The connection was lost during the upload." }));
    };
    transfer.send(file);
  });
}
