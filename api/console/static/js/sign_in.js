/** Where a token is asked for. It is sent once, and from then on kept in a cookie that scripts cannot read. */
import { html, useState } from "./lib.js";
import { api } from "./api.js";
import { useTitle } from "./title.js";
import { Button } from "./ui/button.js";
import { ErrorBox } from "./ui/empty.js";
import { TextField } from "./ui/fields.js";

export function SignIn() {
  const [token, setToken] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useTitle("Sign in");
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await api.post("/api/session", { token: token.trim() });
      location.reload();
    } catch (refused) {
      setError(refused);
      setBusy(false);
    }
  };
  return html`<main class="sign-in" id="main" data-state="ready"><form class="card" onSubmit=${send}>
    <header><h1>Sign in to Holdfast</h1></header>
    <div class="body"><p class="dim">This service asks for a token. Whoever runs it makes one with <code>bin/token</code>.</p>
      <${TextField} label="Token" type="password" value=${token} onInput=${setToken} autocomplete="current-password" />
      <${ErrorBox} error=${error} title="Not signed in" />
      <${Button} kind="primary" type="submit" busy=${busy}>Sign in</${Button}></div>
  </form></main>`;
}
