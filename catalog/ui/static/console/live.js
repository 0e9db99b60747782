// The change feed as a stream of events.
import { root } from "./api.js";

/**
 * Follow the changes after one; browsers reconnect by themselves and resume where they were.
 *
 * @param since the change after which to begin, as in `Catalog-Change`.
 * @param onChange is called with each change.
 * @param onState is called with "live", "waiting", or "gone" when the list must be read anew.
 * @returns a function that stops following.
 */
export function follow(since, onChange, onState) {
  const path = `/api/products/changes?since=${encodeURIComponent(since)}`;
  const source = new EventSource(root + path);
  source.onopen = () => onState("live");
  source.onmessage = (event) => onChange(JSON.parse(event.data));
  source.addEventListener("end", () => {
    source.close();
    onState("gone");
  });
  source.onerror = () => onState(source.readyState === EventSource.CLOSED ? "gone" : "waiting");
  return () => source.close();
}
