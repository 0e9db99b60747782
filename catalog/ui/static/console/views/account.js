import { json, logOut, session } from "../api.js";
import { html } from "../html.js";
import { Fault, Field, Heading, Moment, fieldsOf, useAction, useLoaded } from "../parts.js";
import { go } from "../router.js";
import { useState } from "../vendor/hooks.js";

/** The caller's account: its sessions and its password. */
export function Account() {
  const { user } = session;
  return html`<${Heading}>${user.username}<//>
    <p>${user.email}, ${user.role ?? "user"}</p>
    <${Sessions} /> <${Keys} /> <${Password} />`;
}

function Sessions() {
  const [list, problem, reload] = useLoaded(() => json("GET", "/api/auth/sessions"), []);
  const [end, isBusy, refusal] = useAction(async ({ id, current }) => {
    if (current) {
      await logOut();
      go("/");
      return;
    }
    await json("DELETE", `/api/auth/sessions/${id}`);
    await reload();
  });
  return html`<section>
    <h2>Sessions</h2>
    <${Fault} problem=${problem} retry=${reload} />
    <${Fault} problem=${refusal} />
    <table>
      <thead>
        <tr>
          <th scope="col">Client</th><th scope="col">Address</th><th scope="col">Last used</th>
          <td></td>
        </tr>
      </thead>
      <tbody>
        ${list?.sessions.map(
          (each) => html`<tr key=${each.id}>
            <td>${each.agent || "unknown"} ${each.current && html`<strong>(this one)</strong>`}</td>
            <td>${each.address}</td>
            <td><${Moment} at=${each.last_used_at} /></td>
            <td>
              <button
                class="outline secondary" aria-busy=${isBusy} onClick=${() => end(each)}
                aria-label=${`End the session at ${each.address}`}
              >
                End
              </button>
            </td>
          </tr>`,
        )}
      </tbody>
    </table>
  </section>`;
}

/** API keys, with which programs sign in. */
function Keys() {
  const [list, problem, reload] = useLoaded(() => json("GET", "/api/auth/keys"), []);
  const [made, setMade] = useState(null);
  const [make, isMaking, refusal] = useAction(async (event) => {
    const form = event.target;
    setMade(await json("POST", "/api/auth/keys", fieldsOf(event)));
    form.reset();
    await reload();
  });
  const [revoke, isRevoking, fault] = useAction(async ({ id }) => {
    await json("DELETE", `/api/auth/keys/${id}`);
    if (made?.id === id) setMade(null);
    await reload();
  });
  return html`<section>
    <h2>API keys</h2>
    <p>A program sends a key as <code>Authorization: Bearer</code>, and needs no password.</p>
    <${Fault} problem=${problem} retry=${reload} />
    <${Fault} problem=${fault} />
    ${made &&
    html`<p role="status">
      Copy the key of “${made.name}” now; it is not shown again:<br />
      <code class="key">${made.key}</code>
    </p>`}
    ${list?.keys.length > 0 &&
    html`<table>
      <thead>
        <tr>
          <th scope="col">Name</th><th scope="col">Scope</th><th scope="col">Created</th>
          <td></td>
        </tr>
      </thead>
      <tbody>
        ${list.keys.map(
          (each) => html`<tr key=${each.id}>
            <td><bdi>${each.name}</bdi></td>
            <td>${each.scope}</td>
            <td><${Moment} at=${each.created_at} /></td>
            <td>
              <button
                class="outline secondary" aria-busy=${isRevoking} onClick=${() => revoke(each)}
                aria-label=${`Revoke the key ${each.name}`}
              >
                Revoke
              </button>
            </td>
          </tr>`,
        )}
      </tbody>
    </table>`}
    <form class="narrow" onSubmit=${make}>
      <${Field} label="Name of the program" name="name" required problem=${refusal} />
      <label for="scope">Scope</label>
      <select id="scope" name="scope">
        <option value="read">read</option>
        <option value="write">read and write</option>
      </select>
      <${Fault} problem=${refusal} />
      <button aria-busy=${isMaking}>Make a key</button>
    </form>
  </section>`;
}

function Password() {
  const [isDone, setDone] = useState(false);
  const [change, isBusy, problem] = useAction(async (event) => {
    const form = event.target;
    setDone(false);
    await json("POST", "/api/auth/password", fieldsOf(event));
    form.reset();
    setDone(true);
  });
  return html`<section>
    <h2>Change the password</h2>
    <form class="narrow" onSubmit=${change}>
      <input type="text" hidden autocomplete="username" value=${session.user.username} />
      <${Field}
        label="Current password" name="current_password" type="password" required
        autocomplete="current-password" problem=${problem}
      />
      <${Field}
        label="New password" name="new_password" type="password" required
        autocomplete="new-password" problem=${problem}
        hint="All other sessions will end."
      />
      <${Fault} problem=${problem} />
      ${isDone && html`<p role="status">The password is changed.</p>`}
      <button aria-busy=${isBusy}>Change</button>
    </form>
  </section>`;
}
