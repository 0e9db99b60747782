import { upload } from "../api.js";
import { html } from "../html.js";
import { Fault, Heading, Link, useAction } from "../parts.js";
import { useState } from "../vendor/hooks.js";

const counts = new Intl.NumberFormat();

/** Media type of a file, by its name. */
function mediaTypeOf(file) {
  return /\.(ndjson|jsonl|json)$/i.test(file.name) ? "application/x-ndjson" : "text/csv";
}

/** A file of products to create, with its progress and the lines that were refused. */
export function Import() {
  const [progress, setProgress] = useState(null);
  const [report, setReport] = useState(null);
  const [send, isBusy, problem] = useAction(async (event) => {
    event.preventDefault();
    const { file, atomic } = event.target.elements;
    setReport(null);
    setProgress({ loaded: 0, total: file.files[0].size });
    const path = `/api/products${atomic.checked ? "?atomic=true" : ""}`;
    const onProgress = (loaded, total) => setProgress({ loaded, total });
    setReport(await upload(path, file.files[0], mediaTypeOf(file.files[0]), onProgress));
  });
  const errors = report?.errors ?? problem?.members?.errors?.filter((error) => error.line) ?? [];
  return html`<article>
    <${Heading}>Import products<//>
    <p>
      A CSV file with a header line (<code>name,price,description</code>), or NDJSON with a product
      in each line.
    </p>
    <form onSubmit=${send}>
      <label for="file">File</label>
      <input
        id="file" name="file" type="file" required
        accept=".csv,.ndjson,.jsonl,text/csv,application/x-ndjson"
      />
      <label><input type="checkbox" name="atomic" /> All or nothing</label>
      <button aria-busy=${isBusy}>Import</button>
    </form>
    ${isBusy &&
    progress &&
    html`<label
      >${progress.loaded < progress.total ? "Sending" : "Waiting for the report"}
      <progress value=${progress.loaded} max=${progress.total} />
    </label>`}
    <${Fault} problem=${problem} />
    ${report && html`<${Report} report=${report} />`}
    ${errors.length > 0 && html`<${Errors} errors=${errors} />`}
  </article>`;
}

function Report({ report }) {
  return html`<p role="status">
    ${counts.format(report.created)} created, ${counts.format(report.failed)} failed.${" "}
    <${Link} to="/">See the products<//>
  </p>`;
}

function Errors({ errors }) {
  return html`<table>
    <caption>Lines that were refused</caption>
    <thead>
      <tr><th scope="col">Line</th><th scope="col">Field</th><th scope="col">Reason</th></tr>
    </thead>
    <tbody>
      ${errors.map(
        (error) => html`<tr>
          <td>${error.line}</td>
          <td>${error.pointer?.slice(1)}</td>
          <td>${error.message}</td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}
