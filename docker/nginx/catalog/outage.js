// Requests while no instance can be reached.
//
// When all instances are replaced at once, as by Docker Compose, there is none for some seconds.
// Requests then wait for the next one and are retried. After a time-out they get 503, and later
// requests get it at once.

// Counted from the last response of the service, or from the request that found it gone after a time
// without requests. Replacing takes some 5 s, 20 s on a busy machine,
// and clients wait for about as long.
const WAIT_MS = 30000;

// After two retries an instance responds, but not to this request. nginx allows only ten internal
// redirects.
const MAX_REPEATS = 2;

// Thousands of requests may wait, so they poll rarely and with jitter.
const PAUSE_MS = 50;
const SPREAD_MS = 100;

/** Wait for the service and retry the request, if that is safe. */
async function wait(r) {
    const arrived = Date.now() - r.variables.request_time * 1000;
    const repeats = Number(r.variables.catalog_repeats);
    if (repeats >= MAX_REPEATS || !mayRepeat(r)) {
        r.return(503);
        return;
    }
    // Before the time of the failure: a poll that is skipped for want of demand counts as answered.
    ngx.shared.catalog.set('last_demand', Date.now());
    const failed = Date.now();
    for (;;) {
        const lastAnswer = ngx.shared.catalog.get('last_answer');
        if (lastAnswer > failed) {
            r.variables.catalog_repeats = repeats + 1;
            // Keeps the body.
            r.internalRedirect(r.variables.request_uri);
            return;
        }
        // Nor does any request wait longer than that after its arrival.
        if (!(Date.now() < Math.min(lastAnswer, arrived) + WAIT_MS)) {
            r.return(503);
            return;
        }
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS + Math.random() * SPREAD_MS));
        ngx.shared.catalog.set('last_demand', Date.now());
    }
}

/** Whether no instance can have applied the request, or it is idempotent. */
function mayRepeat(r) {
    const isRead = r.method === 'GET' || r.method === 'HEAD';
    // One number for each instance that was tried; empty if there was none to try.
    const wasSent = /[1-9]/.test(r.variables.upstream_bytes_sent);
    return isRead || !wasSent || r.variables.catalog_write === 'keyed';
}

export default {wait};
