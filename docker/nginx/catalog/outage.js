// What becomes of requests while no instance can be reached.
//
// When all instances are replaced at once, as Docker Compose does it, there is none for some
// seconds. Requests wait for the next one then, instead of failing. When that takes too long they
// get 503, and from then on at once.

// How long after the service was last seen. Replacing takes some 5 s, 20 on a machine that is busy;
// and clients are patient for about as long.
const PATIENCE_MS = 30000;

// After that an instance answers, but not this; and nginx takes a request elsewhere ten times only.
const MAX_REPEATS = 2;

// Thousands may be waiting; so they look seldom, and not all at the same time.
const PAUSE_MS = 50;
const SPREAD_MS = 100;

/** Wait for the service and try once more, if that can do no harm. */
async function wait(r) {
    const arrived = Date.now() - r.variables.request_time * 1000;
    const repeats = Number(r.variables.catalog_repeats);
    if (repeats >= MAX_REPEATS || !mayRepeat(r)) {
        r.return(503);
        return;
    }
    const failed = Date.now();
    for (;;) {
        const answered = ngx.shared.catalog.get('answered');
        if (answered > failed) {
            r.variables.catalog_repeats = repeats + 1;
            // Its body comes along.
            r.internalRedirect(r.variables.request_uri);
            return;
        }
        // Whatever happens in between, nobody waits for longer than that either.
        if (!(Date.now() < Math.min(answered, arrived) + PATIENCE_MS)) {
            r.return(503);
            return;
        }
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS + Math.random() * SPREAD_MS));
    }
}

/** Whether an instance cannot have done it, or doing it twice is the same. */
function mayRepeat(r) {
    const isRead = r.method === 'GET' || r.method === 'HEAD';
    // A number for each instance that was tried; none, where there was no instance to try.
    const wasSent = /[1-9]/.test(r.variables.upstream_bytes_sent);
    return isRead || !wasSent || r.variables.catalog_location === 'keyed';
}

export default {wait};
