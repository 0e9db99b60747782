import { upload } from "../api.js";
import { html } from "../html.js";
import { Fault, Heading, Link, useAction } from "../parts.js";
import { useState } from "../vendor/hooks.js";

const counts = new Intl.NumberFormat();

// Those in which spreadsheets save CSV around the world.
const CHARSETS = [
  ["", "Unicode (UTF-8, or UTF-16 with a byte order mark)"],
  ["windows-1252", "Western European (Windows-1252, ISO 8859-1)"],
  ["iso-8859-15", "Western European (ISO 8859-15)"],
  ["ibm850", "Western European (DOS, IBM 850)"],
  ["macintosh", "Western European (Macintosh)"],
  ["windows-1250", "Central European (Windows-1250)"],
  ["iso-8859-2", "Central European (ISO 8859-2)"],
  ["windows-1257", "Baltic (Windows-1257)"],
  ["windows-1251", "Cyrillic (Windows-1251)"],
  ["koi8-r", "Cyrillic (KOI8-R)"],
  ["windows-1253", "Greek (Windows-1253)"],
  ["windows-1254", "Turkish (Windows-1254)"],
  ["windows-1255", "Hebrew (Windows-1255)"],
  ["windows-1256", "Arabic (Windows-1256)"],
  ["windows-1258", "Vietnamese (Windows-1258)"],
  ["windows-874", "Thai (Windows-874)"],
  ["gb18030", "Simplified Chinese (GB 18030, GBK)"],
  ["big5", "Traditional Chinese (Big5)"],
  ["shift_jis", "Japanese (Shift JIS)"],
  ["euc-jp", "Japanese (EUC-JP)"],
  ["euc-kr", "Korean (EUC-KR)"],
];

/** Headers that say what a file is: by its name, and for CSV by the chosen encoding. */
function headersOf(file, charset) {
  const isCompressed = /\.gz$/i.test(file.name);
  const isJson = /\.(ndjson|jsonl|json)(\.gz)?$/i.test(file.name);
  const csv = charset ? `text/csv; charset=${charset}` : "text/csv";
  return {
    "Content-Type": isJson ? "application/x-ndjson" : csv,
    ...(isCompressed && { "Content-Encoding": "gzip" }),
  };
}

/** A file of products to create, with its progress and the lines that were refused. */
export function Import() {
  const [progress, setProgress] = useState(null);
  const [report, setReport] = useState(null);
  const [send, isBusy, problem] = useAction(async (event) => {
    event.preventDefault();
    const { file, charset, atomic } = event.target.elements;
    const [chosen] = file.files;
    setReport(null);
    setProgress({ loaded: 0, total: chosen.size });
    const path = `/api/products${atomic.checked ? "?atomic=true" : ""}`;
    const onProgress = (loaded, total) => setProgress({ loaded, total });
    setReport(await upload(path, chosen, headersOf(chosen, charset.value), onProgress));
  });
  const errors = report?.errors ?? problem?.members?.errors?.filter((error) => error.line) ?? [];
  return html`<article>
    <${Heading}>Import products<//>
    <p>
      A CSV file with a header line (<code>name,price,description</code>), or NDJSON with a product
      in each line; either may be compressed with gzip.
    </p>
    <form onSubmit=${send}>
      <label for="file">File</label>
      <input
        id="file" name="file" type="file" required
        accept=".csv,.ndjson,.jsonl,.gz,text/csv,application/x-ndjson,application/gzip"
      />
      <label for="charset">Encoding of CSV</label>
      <select id="charset" name="charset">
        ${CHARSETS.map(([name, text]) => html`<option value=${name}>${text}</option>`)}
      </select>
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
    ${problem?.members?.line !== undefined && html`<${Aborted} ...${problem.members} />`}
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

/** How far an import has come that was aborted: what it had created is there. */
function Aborted({ created, failed, line }) {
  if (!created) return html`<p>Nothing was created.</p>`;
  return html`<p>
    ${counts.format(created)} created, ${counts.format(failed)} failed, up to line
    ${" "}${counts.format(line)}. To continue, import a file with the lines after that one, and with
    the header if it is CSV: lines that are imported again create their products again.
    ${" "}<${Link} to="/">See the products<//>
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
