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
    <${Sessions} /> <${Password} />`;
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
    <${Fault} problem=${problem ?? refusal} />
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

function Password() {
  const [isDone, setDone] = useState(false);
  const [change, isBusy, problem] = useAction(async (event) => {
    const form = event.target;
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
