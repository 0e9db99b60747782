// The change feed as a stream of events.
import { json, root, untilRetry } from "./api.js";

const FEED = "/api/products/changes";

/**
 * Follow the changes after one, without a gap: after a loss from the last change that came.
 *
 * Browsers resume a stream that breaks, but none that is refused, as it is while the service is
 * away, and they may notice late that the network has gone.
 *
 * @param since the change after which to begin, as in `Catalog-Change`.
 * @param onChange is called with each change.
 * @param onState is called with "live", "waiting", or "gone" when the list must be read anew.
 * @returns a function that stops following.
 */
export function follow(since, onChange, onState) {
  let last = since;
  let source = null;
  let isOver = false;

  const tell = (state) => isOver || onState(state);
  const after = () => `${FEED}?since=${encodeURIComponent(last)}`;

  function open() {
    source?.close();
    if (isOver) return;
    source = new EventSource(root + after());
    source.onopen = () => tell("live");
    source.onmessage = (event) => {
      last = event.lastEventId || last;
      onChange(JSON.parse(event.data));
    };
    source.addEventListener("end", ended);
    source.onerror = () => {
      tell("waiting");
      if (source.readyState === EventSource.CLOSED) again();
    };
  }

  // A service that stops ends its streams. The connection is closed after that, and the browser
  // resumes the stream from the last change, with another process.
  function ended(event) {
    if (JSON.parse(event.data).code === "changes-gone") gone();
    else tell("waiting");
  }

  // The stream does not tell why it was refused, so a page of the feed is asked for.
  async function again() {
    const refused = source;
    let problem = {};
    try {
      await json("GET", `${after()}&limit=1`);
    } catch (failure) {
      problem = failure;
    }
    if (problem.status === 410) return gone();
    await untilRetry(problem);
    if (source === refused) open();
  }

  function gone() {
    tell("gone");
    stop();
  }

  function pause() {
    source?.close();
    tell("waiting");
  }

  function stop() {
    isOver = true;
    source?.close();
    removeEventListener("offline", pause);
    removeEventListener("online", open);
  }

  addEventListener("offline", pause);
  addEventListener("online", open);
  open();
  return stop;
}
