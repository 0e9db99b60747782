// Tracks the position of the database, so that the cache never serves a stale page.
//
// `generation` is part of every page's cache key. Every change that nginx sees begins a new one,
// before the response is passed on to the client that made the change. A page is requested after
// its generation began, so it includes everything that was acknowledged by then. Generations are
// counted from a random number: if two workers begin one at the same time, each gets a new one.
// Keeping the higher of two positions would be a race, so the key holds no position. A generation
// expires unless a poll of the service's position or a page finds nothing new; that covers writes that
// bypass this nginx. The next request then begins a new one.
//
// Pages of older products, and single products, have a generation of their own, which the creation of
// products does not end. Two changes have the same era, the first part of the token in Catalog-Change,
// if nothing but creations of products above all earlier ones lies between. Which pages these do not
// affect is known to the service (Catalog-Unaffected-By). That generation does not expire, but is used
// only while it is confirmed: a busy service answers polls late, and to fetch all pages again would
// keep it busy. Until a response confirms it, its pages have the other generation as well.
//
// `change` is the Catalog-Change of the highest position seen, by which changes are detected. The
// position alone does not suffice: a database restored from a backup reaches the same position
// again with other changes. Instances of an earlier release send a position only, which may belong
// to any history.
//
// Polls follow demand: `last_demand` is the time of the last page request that generation.js recorded, or
// at which a request waited for an instance. Without one for IDLE_MS nginx polls nothing, and keeps
// no generation: the next page comes from the service.
//
// `any_since` and `settled_since` are the starts of the last requests that have begun or confirmed
// these generations.
//
// `last_poll` is the start of the last poll of the service, and `last_answer` that of the last
// successful one; while nginx does not poll, the service counts as answering. outage.js uses it.

import pages from './generation.js';

const POSITION_URL = 'http://127.0.0.1:8090/position';

// As in catalog/products/models.py and changes/change_ids.py.
const TOKEN_LENGTH = 10;
const ERA_LENGTH = 5;

const INTERVAL_MS = 50;

// Longer than people pause between two pages, and than a slow stream of requests goes unrecorded
// (generation.js).
const IDLE_MS = 5000;

// nginx calls `watch` and `bridge` every 2000 ms and kills a run that has not ended by then. The last
// poll of `watch` may take 200 ms, and those of `bridge` 90 ms: together they leave no gap in which the
// generations would expire.
const WATCH_MS = 1700;
const BRIDGE_MS = 1900;

// The database is not restored and changed again in so short a time.
const GAP_MS = 2000;

/** Record the last change that a response includes, before the client gets it. */
function note(r) {
    const known = ngx.shared.catalog_change.get('change');
    const change = changeOf(r.headersOut);
    if (isRead(r)) {
        // A client that has seen a change elsewhere must not get an older page here.
        if (change && (isHigher(change, known) || isOther(change, known))) {
            begin(change);
        }
    } else if (change ? change !== known : mayHaveChanged(r)) {
        // Even if it is lower: the later of two writes may be answered first, or the database was
        // restored from a backup. Only an equal change belongs to this generation.
        begin(change);
    }
}

/** Begin a generation if nginx's own error is the response to a write that may be applied. */
function noteProblem(r) {
    const wasSent = /[1-9]/.test(r.variables.upstream_bytes_sent);
    // An import whose client was too slow may have been applied in part.
    const isPartial = r.variables.catalog_location === 'bulk' && r.variables.status === '408';
    if (!isRead(r) && wasSent && (isPartial || r.variables.status >= 500)) {
        begin('');
    }
}

/** Return the change that a page requested now must include. */
function expected() {
    return ngx.shared.catalog_change.get('change') || '';
}

/** Record a page's change, and do not cache the page unless it belongs to this generation. */
function notePage(r) {
    note(r);
    const change = changeOf(r.headersOut);
    const before = r.variables.catalog_expected;
    const isJson = /^application\/json\b/.test(r.headersOut['Content-Type']);
    // In the generation that new products do not end, only what they do not affect.
    const isLasting =
        !r.variables.catalog_is_settled ||
        r.variables.upstream_http_catalog_unaffected_by === 'created';
    // By contract a response is at least as new as its request. If it is not, as from a lagging
    // replica, the page is not cached. A change since the request has begun a generation of its
    // own, and is no reason to withhold the page from requests that wait for this one.
    const isRecent = change && !isHigher(before, change) && !isOther(before, change);
    if (!(isJson && isLasting && isRecent)) {
        r.headersOut['X-Accel-Expires'] = '0';
    }
    if (isRecent) {
        confirm(change, Date.now() - Math.round(r.variables.request_time * 1000));
    } else if (change) {
        // The database may be restored, and still have the same era.
        pages.begin('settled');
    }
}

/** Keep the generations that a page's change confirms, as a poll does: busy instances answer it late. */
function confirm(change, started) {
    const known = ngx.shared.catalog_change.get('change');
    if (isSameEra(change, known)) {
        keep('settled', started);
    }
    if (change === known) {
        keep('any', started);
    }
}

/** Whether a write without a position may have changed something. */
function mayHaveChanged(r) {
    // A failed write may have been committed; deleting an account deletes its products.
    return r.status >= 500 || (r.method === 'DELETE' && r.status < 300);
}

function isRead(r) {
    return r.method === 'GET' || r.method === 'HEAD';
}

/** Begin a generation, whose pages include the change. */
function begin(change) {
    const changes = ngx.shared.catalog_change;
    // From here on, pages of earlier generations are not hit.
    pages.begin('any');
    let known = changes.get('change');
    if (!isSameEra(change, known) || isOther(change, known)) {
        pages.begin('settled');
    }
    // In this order: a request that reads the change here relies on the new generations.
    known = changes.get('change');
    if (change && (isHigher(change, known) || isOther(change, known))) {
        changes.set('change', change);
    }
}

/** Poll the service for its last change while there is demand. */
async function watch() {
    await poll(Date.now() + WATCH_MS);
}

/** As `watch`, between the ends of its runs and their next beginnings. */
async function bridge() {
    const end = Date.now() + BRIDGE_MS;
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    await poll(end);
}

async function poll(end) {
    const polls = [];
    while (Date.now() < end) {
        const now = Date.now();
        if (isDue(now)) {
            // With thousands of clients a poll takes longer than the interval, so the next one does
            // not wait for it.
            polls.push(pollOnce(now));
        } else {
            stopPolling(now);
        }
        await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
    }
    await Promise.all(polls);
}

/** Whether pages were requested lately, or the last poll has no answer (yet). */
function isDue(now) {
    const lastAnswer = ngx.shared.catalog.get('last_answer');
    const isInDemand = now - (ngx.shared.catalog.get('last_demand') || 0) < IDLE_MS;
    // An outage is followed to its end: later requests depend on how long it has lasted.
    return isInDemand || !lastAnswer || ngx.shared.catalog.get('last_poll') > lastAnswer;
}

/** Stop polling: without polls no generation may be kept, and no outage is known to have begun. */
function stopPolling(now) {
    // It would expire by itself, but not if the clock is set back.
    ngx.shared.catalog_generation.delete('any');
    ngx.shared.catalog.delete('settled');
    ngx.shared.catalog.set('last_answer', now);
    ngx.shared.catalog.set('last_poll', now);
}

async function pollOnce(started) {
    ngx.shared.catalog.set('last_poll', started);
    const changes = ngx.shared.catalog_change;
    const before = changes.get('change');
    const generation = ngx.shared.catalog_generation.get('any');
    const change = await fetchChange();
    if (!change) {
        if (!(Date.now() - ngx.shared.catalog.get('settled_since') < GAP_MS)) {
            ngx.shared.catalog.delete('settled');
        }
        return;
    }
    ngx.shared.catalog.set('last_answer', started);
    // Compared with the change known before the poll: one recorded meanwhile may be newer.
    const isRestored = isHigher(before, change) || isOther(before, change);
    if (isRestored) {
        begin('');
        changes.set('change', change);
        return;
    }
    const known = changes.get('change');
    if (isHigher(change, known)) {
        begin(change);
    } else if (generation !== undefined) {
        // A generation that had expired before the poll is not renewed: during that gap an instance of
        // an earlier release may have written another history up to this position.
        keep('any', started);
    }
    if (isSameEra(change, known)) {
        keep('settled', started);
    }
}

/** Poll the service for its last change; empty if it does not answer with one. */
async function fetchChange() {
    try {
        const reply = await ngx.fetch(POSITION_URL, {method: 'HEAD'});
        return reply.headers.get('Catalog-Change') || reply.headers.get('Catalog-Position') || '';
    } catch (e) {
        return '';
    }
}

/** Keep the current generation of a kind longer, confirmed by a request that began at `started`. */
function keep(kind, started) {
    // Counted from the request and not its response, which may miss writes in between.
    const ms = started + pages.MAX_AGE_MS - Date.now();
    const since = ngx.shared.catalog.get(`${kind}_since`);
    // A slow response must not undo what a later request has confirmed.
    if (ms <= 0 || (started <= since && since <= Date.now())) {
        return;
    }
    ngx.shared.catalog.set(`${kind}_since`, started);
    if (kind === 'settled') {
        ngx.shared.catalog_generation.set(kind, 1, ms);
    } else {
        // Of whichever is current: setting the one read before would undo one begun since.
        ngx.shared.catalog_generation.incr(kind, 0, Math.floor(Math.random() * 2 ** 52), ms);
    }
}

/** Return the last change that a response includes; empty if it has none. */
function changeOf(headers) {
    const change = headers['Catalog-Change'] || headers['Catalog-Position'] || '';
    // Creates of one group commit share a token, so they share one generation.
    const batch = headers['Catalog-Batch-Position'];
    return batch ? change.replace(/^[0-9]+/, batch) : change;
}

/** Whether a change has a higher position than the other, or there is no other. */
function isHigher(change, other) {
    return !other || parseInt(change, 10) > parseInt(other, 10);
}

/** Whether two changes have the same position in different histories. */
function isOther(change, other) {
    // Instances of an earlier release send no token.
    const areTold = Boolean(change && other) && change.includes('.') && other.includes('.');
    return areTold && change !== other && parseInt(change, 10) === parseInt(other, 10);
}

/** Whether nothing but creations of products above all earlier ones lies between two changes. */
function isSameEra(change, other) {
    const token = tokenOf(change);
    // A change made by hand, or by a release without tokens, has the token of the one before it.
    const isNext = token !== tokenOf(other) || change === other;
    return token.length === TOKEN_LENGTH && isNext && eraOf(change) === eraOf(other);
}

function eraOf(change) {
    return tokenOf(change).slice(0, ERA_LENGTH);
}

/** Return the token of a change; empty if it has none. */
function tokenOf(change) {
    return (change || '').split('.')[1] || '';
}

export default {bridge, expected, note, notePage, noteProblem, watch};
