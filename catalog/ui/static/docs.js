// The API documentation: Swagger UI, signed in as the console is.
//
// The refresh token is the console's cookie, which no script can read, and the access token is in
// memory only, so a reload asks for another one and there is nothing to steal from a storage.

import { makeAccessible } from "./docs_accessibility.js";

const { root, api } = document.body.dataset;
const { logIn, logOut, observe, resume, renew, session } = await import(api);

const page = document.getElementById("swagger-ui");
const signIn = document.getElementById("sign-in");
const signOut = document.getElementById("sign-out");
const notice = document.getElementById("notice");

const ENDING = [`${root}/api/auth/logout`, `${root}/api/auth/logout-all`, `${root}/api/auth/me`];
const MARGIN_SECONDS = 30; // a token that expires that soon is renewed before a request

const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

function expiresSoon(token) {
  const claims = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
  return JSON.parse(atob(claims)).exp - MARGIN_SECONDS < Date.now() / 1000;
}

// Swagger UI sends the token that it was given where an operation needs one. An expired one is
// renewed; a token that was pasted, such as an API key, is left alone.
async function prepare(request) {
  const sent = request.headers?.Authorization;
  if (!sent || sent !== `Bearer ${session.token}` || !expiresSoon(session.token)) return request;
  await renew().catch(() => {});
  if (session.token) request.headers.Authorization = `Bearer ${session.token}`;
  return request;
}

// An operation that ends the session signs the page out, too.
function follow(response) {
  const { pathname } = new URL(response.url);
  const hasEnded = response.status === 204 && ENDING.includes(pathname);
  if (hasEnded && session.token) logOut().catch(() => {});
  return response;
}

let given = null; // the token that Swagger UI has

function show() {
  const { user, token } = session;
  signIn.hidden = Boolean(user);
  signOut.hidden = !user;
  signOut.querySelector("strong").textContent = user?.username ?? "";
  if (token) ui.preauthorizeApiKey("bearer", token);
  else if (given) ui.authActions.logout(["bearer"]);
  given = token;
}

async function submit(event, action) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  notice.textContent = "";
  try {
    await action();
    event.target.reset();
  } catch (problem) {
    notice.textContent = problem.members?.detail ?? problem.message;
  } finally {
    button.disabled = false;
  }
}

signIn.addEventListener("submit", (event) =>
  submit(event, () => logIn(Object.fromEntries(new FormData(signIn)))),
);
signOut.addEventListener("submit", (event) => submit(event, logOut));

const ui = SwaggerUIBundle({
  url: page.dataset.document,
  domNode: page,
  deepLinking: true,
  // The default asks a server on the internet to validate the document.
  validatorUrl: null,
  syntaxHighlight: { theme: "monokai" },
  requestInterceptor: prepare,
  responseInterceptor: follow,
  onComplete: async () => {
    observe(show);
    await resume();
    show();
    page.dataset.ready = "";
  },
});
makeAccessible(page);
