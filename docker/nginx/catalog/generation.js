// The generation of pages; position.js says what it is for.
//
// nginx runs this file from the top for each page, and everything that it defines costs every hit.
// So it holds what a hit needs, and pages import nothing else.

/** The present generation. */
function generation() {
    // Nobody knows for how long what is found is true: a busy nginx may be late to look, and a look
    // may get no answer. To pass all on to the service would not help it then.
    return ngx.shared.catalog_generation.get('generation') || draw();
}

/**
 * Begin a generation, which no page was cached under, by an earlier run of nginx either.
 *
 * It counts as up to date for 200 ms. Writes that go around this nginx show within 250 ms, by
 * contract; the rest is for clocks, which nginx reads once for a lot of requests.
 */
function draw() {
    return ngx.shared.catalog_generation.incr(
        'generation', 1, Math.floor(Math.random() * 2 ** 52), 200,
    );
}

export default {generation, draw};
