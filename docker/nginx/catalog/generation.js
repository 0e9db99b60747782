// The generation of pages; position.js says what it is for.
//
// nginx runs this file from the top for each page, and everything that it defines costs every hit.
// So it holds what a hit needs, and pages import nothing else.

// Writes that go around this nginx show within 250 ms, by contract; the rest is for clocks, which
// nginx reads once for a lot of requests.
const MAX_AGE_MS = 200;

/** The present generation. */
function generation() {
    // Without one nobody knows for how long what is found has been true: a busy nginx may be late to
    // look, and a look may get no answer. To pass all on to the service would not help it then.
    return ngx.shared.catalog_generation.get('generation') || count(1, MAX_AGE_MS);
}

/**
 * Count on to a generation that no page was cached under, by an earlier run of nginx either, which
 * expires after so many milliseconds; by 0, have the present one expire then.
 */
function count(step, ms) {
    const first = Math.floor(Math.random() * 2 ** 52);
    return ngx.shared.catalog_generation.incr('generation', step, first, ms);
}

export default {generation, count, MAX_AGE_MS};
