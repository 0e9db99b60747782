import { json, session } from "../api.js";
import { html } from "../html.js";
import { Fault, Heading, Moment, useAction } from "../parts.js";
import { useEffect, useState } from "../vendor/hooks.js";

/** All accounts, for administrators. */
export function Users() {
  const [users, setUsers] = useState([]);
  const [next, setNext] = useState("/api/users");
  const [more, isLoading, problem] = useAction(async () => {
    const page = await json("GET", next);
    setUsers([...users, ...page.users]);
    setNext(page.next?.slice(page.next.indexOf("/api/")));
  });
  const [change, , refusal] = useAction(async (user, values) => {
    const changed = await json("PATCH", `/api/users/${user.id}`, values);
    setUsers(users.map((each) => (each.id === user.id ? changed : each)));
  });
  useEffect(() => {
    more();
  }, []);
  return html`<${Heading}>Users<//>
    <${Fault} problem=${problem ?? refusal} />
    <table>
      <thead>
        <tr>
          <th scope="col">Name</th><th scope="col">E-mail address</th><th scope="col">Since</th>
          <th scope="col">Role</th><th scope="col">State</th>
        </tr>
      </thead>
      <tbody>
        ${users.map((user) => html`<${Row} key=${user.id} user=${user} change=${change} />`)}
      </tbody>
    </table>
    ${next &&
    html`<button class="outline" aria-busy=${isLoading} onClick=${more}>Load more</button>`}`;
}

function Row({ user, change }) {
  const isSelf = user.id === session.user.id;
  return html`<tr>
    <td><bdi>${user.username}</bdi></td>
    <td><bdi>${user.email}</bdi></td>
    <td><${Moment} at=${user.created_at} /></td>
    <td>
      <select
        aria-label=${`Role of ${user.username}`}
        value=${user.role}
        onChange=${(event) => change(user, { role: event.target.value })}
      >
        ${["user", "admin"].map((role) => html`<option value=${role}>${role}</option>`)}
      </select>
    </td>
    <td>
      <button
        class="outline secondary" disabled=${isSelf}
        onClick=${() => change(user, { disabled: !user.disabled })}
      >
        ${user.disabled ? "Enable" : "Disable"}
      </button>
    </td>
  </tr>`;
}
