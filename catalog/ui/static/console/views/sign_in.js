import { logIn, signUp } from "../api.js";
import { html } from "../html.js";
import { Fault, Field, Heading, fieldsOf, useAction } from "../parts.js";
import { go } from "../router.js";
import { useState } from "../vendor/hooks.js";

/** Log-in and sign-up; `onward` is the page to show afterwards. */
export function SignIn({ onward }) {
  const [isNew, setNew] = useState(false);
  const [wasNew, setWasNew] = useState(false);
  const [submit, isBusy, failure] = useAction(async (event) => {
    const fields = fieldsOf(event);
    setWasNew(isNew);
    await (isNew ? signUp(fields) : logIn(fields));
    go(onward, { replace: true });
  });
  // What was wrong with one of the forms says nothing about the other.
  const problem = wasNew === isNew ? failure : null;
  const password = isNew ? "new-password" : "current-password";
  return html`<article class="narrow">
    <${Heading}>${isNew ? "Sign up" : "Sign in"}<//>
    <form onSubmit=${submit}>
      <${Field}
        label=${isNew ? "Username" : "Username or e-mail address"}
        name="username"
        autocomplete="username"
        required
        problem=${problem}
      />
      ${isNew &&
      html`<${Field}
        label="E-mail address"
        name="email"
        type="email"
        autocomplete="email"
        required
        problem=${problem}
      />`}
      <${Field}
        label="Password"
        name="password"
        type="password"
        autocomplete=${password}
        hint=${isNew ? "At least 8 characters." : undefined}
        required
        problem=${problem}
      />
      <${Fault} problem=${problem} />
      <button aria-busy=${isBusy}>${isNew ? "Sign up" : "Sign in"}</button>
    </form>
    <p>
      ${isNew ? "You have an account? " : "No account yet? "}
      <button class="link" onClick=${() => setNew(!isNew)}>
        ${isNew ? "Sign in" : "Sign up"}
      </button>
    </p>
  </article>`;
}
