// The generation in the cache key of pages; position.js explains it.
//
// nginx runs this file from the top for each page, so everything that it defines costs every hit.
// It holds only what a hit needs, and pages import nothing else.

// By contract, writes that bypass this nginx are visible within 250 ms. The other 50 ms allow for
// the clock, which nginx reads once for many requests.
const MAX_AGE_MS = 200;

// Hits in one of so many milliseconds record the demand for pages, which position.js polls for.
// Recording each one would make hits slower, and so would a random number, which njs draws from the
// system. Without a record in time the generation expires, and the next request begins one.
const RECORD_EVERY_MS = 8;

/** Return the current generation. */
function generation() {
    const current = ngx.shared.catalog_generation.get('generation');
    const now = Date.now();
    if (current && now % RECORD_EVERY_MS) {
        return current;
    }
    ngx.shared.catalog.set('asked', now);
    // If it has expired, cached pages may be stale: a busy nginx may poll late, and a poll may get
    // no response. Passing all requests on to the service would only add load, so begin a new one.
    return current || count(1, MAX_AGE_MS);
}

/**
 * Advance to a generation that no cached page uses, not even one of an earlier run of nginx. It
 * expires after `ms` milliseconds. A step of 0 only sets that expiry for the current generation.
 */
function count(step, ms) {
    const first = Math.floor(Math.random() * 2 ** 52);
    return ngx.shared.catalog_generation.incr('generation', step, first, ms);
}

export default {generation, count, MAX_AGE_MS};
