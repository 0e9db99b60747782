// The generations in the cache keys of pages; position.js explains them.
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

/** Return the current generation of pages that every change may affect. */
function generation() {
    const current = ngx.shared.catalog_generation.get('any');
    const now = Date.now();
    if (current && now % RECORD_EVERY_MS) {
        return current;
    }
    ngx.shared.catalog.set('last_demand', now);
    // If it has expired, cached pages may be stale: a busy nginx may poll late, and a poll may get
    // no response. Passing all requests on to the service would only add load, so begin a new one.
    return current || begin('any');
}

/** Return the current generation of pages that new products do not affect. */
function settledGeneration() {
    const current = ngx.shared.catalog.get('settled') || begin('settled');
    const now = Date.now();
    const isConfirmed = ngx.shared.catalog_generation.get('settled');
    if (isConfirmed && now % RECORD_EVERY_MS) {
        return current;
    }
    ngx.shared.catalog.set('last_demand', now);
    // The next response may confirm it: its pages need not be fetched again.
    return isConfirmed ? current : `${current} ${generation()}`;
}

/** Begin a generation that no cached page uses, not even one of an earlier run of nginx. */
function begin(kind) {
    const first = Math.floor(Math.random() * 2 ** 52);
    ngx.shared.catalog.set(`${kind}_since`, Date.now());
    if (kind === 'any') {
        return ngx.shared.catalog_generation.incr(kind, 1, first, MAX_AGE_MS);
    }
    const current = ngx.shared.catalog.incr(kind, 1, first);
    ngx.shared.catalog_generation.set(kind, 1, MAX_AGE_MS);
    return current;
}

export default {generation, settledGeneration, begin, MAX_AGE_MS};
