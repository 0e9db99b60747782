// The API, as any other client uses it; only the sign-in goes through the console's own paths, which
// keep the refresh token in a cookie that scripts cannot read.

export const root = document.body.dataset.root;

const SESSION = "/console/session";
const HINT = "catalog-signed-in"; // tells a new page that there is a cookie, which it cannot see

/** An error response: problem details (RFC 9457), or a network failure with status 0. */
export class Problem extends Error {
  /** @param seconds after which the service asks to try again, if it does. */
  constructor(status, members, seconds = 0) {
    super(members.detail ?? members.title ?? `The service answered ${status}.`);
    this.status = status;
    this.members = members;
    this.seconds = seconds;
    if (seconds) this.message += ` Try again in ${seconds} second${seconds === 1 ? "" : "s"}.`;
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
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  throw new Problem(response.status, await response.json().catch(() => ({})), seconds);
}

/** Wait for as long as a problem asks for, with jitter, or until the network is back. */
export function untilRetry({ seconds }) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      resolve();
    };
    const timer = setTimeout(end, (seconds || 1) * 1000 + Math.random() * 1000);
    addEventListener("online", end);
  });
}

/** The account that is signed in, its access token, and what keeps the page from knowing them. */
export const session = {
  user: null,
  token: null,
  isKnown: !localStorage.getItem(HINT),
  problem: null,
};

const observers = new Set();

export function observe(observer) {
  observers.add(observer);
  return () => observers.delete(observer);
}

function update(values) {
  Object.assign(session, values);
  for (const observer of observers) observer();
}

function become({ user, access_token: token }) {
  if (user) localStorage.setItem(HINT, user.id);
  else localStorage.removeItem(HINT);
  update({ user, token, isKnown: true, problem: null });
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

/** Resume the session of an earlier page, if there was one, however long the service is away. */
export async function resume() {
  while (localStorage.getItem(HINT) && !session.user) {
    try {
      await renew();
    } catch (problem) {
      update({ problem });
      await untilRetry(problem);
    }
  }
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
export async function upload(path, file, headers, onProgress) {
  // So that the token does not expire in the first moments of a long upload.
  await renew();
  return new Promise((resolve, reject) => {
    const transfer = new XMLHttpRequest();
    transfer.open("POST", root + path);
    for (const [name, value] of Object.entries(headers)) transfer.setRequestHeader(name, value);
    transfer.setRequestHeader("Authorization", `Bearer ${session.token}`);
    transfer.responseType = "json";
    transfer.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    transfer.onload = () => {
      if (transfer.status < 300) resolve(transfer.response);
      else {
        const seconds = Number(transfer.getResponseHeader("Retry-After")) || 0;
        reject(new Problem(transfer.status, transfer.response ?? {}, seconds));
      }
    };
    transfer.onerror = () => {
      const detail = "The connection was lost during the upload; some products may be there already.";
      reject(new Problem(0, { detail }));
    };
    transfer.send(file);
  });
}
