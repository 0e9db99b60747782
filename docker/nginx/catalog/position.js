// What nginx knows of the database: enough to never answer from the cache with what was.
//
// `generation` is part of every cached page's key. A new one begins with every change that is heard
// of, before the client who made it hears of it. A page was asked for after its generation had
// begun, so it shows whatever had been acknowledged by then. Generations are counted from a number
// that is drawn: of two workers that begin one at a time each gets a new one. "The higher of two
// positions" would be a race, and that is why the key holds no position. It expires unless a look
// at the service's position shows that there is nothing new: that is how writes that go around this
// nginx are noticed. The next request begins one then.
//
// `change` is the Catalog-Change of the highest position seen. It tells whether there is anything
// new. The position alone would not: a database that was restored from a backup comes to the same
// one again by other changes. An instance of a release before has a position only, which can be
// that of any history.
//
// `answered` is when the service was last asked and did answer; outage.js goes by it.

import pages from './generation.js';

const POSITION_URL = 'http://127.0.0.1:8090/position';

const INTERVAL_MS = 50;

// How long one run of `watch` goes on. It is called again after 2000 ms, and is killed if it has
// not ended by then; its last look may take 200 ms.
const WATCH_MS = 1700;

/** Note the last change that an answer includes, before the client gets it. */
function note(r) {
    const known = ngx.shared.catalog_change.get('change');
    const change = changeOf(r.headersOut);
    if (isRead(r)) {
        // Who has seen a change, by whatever way, does not see the time before it here.
        if (change && (isHigher(change, known) || isOther(change, known))) {
            begin(change);
        }
    } else if (change ? change !== known : mayHaveChanged(r)) {
        // Even if it is lower: of two writes the later may be answered first; or the database was
        // restored from a backup. Only if it is the same, the change is in this generation.
        begin(change);
    }
}

/** Note an error of nginx's own, by which a client is told of a write that may have been one. */
function noteProblem(r) {
    const wasSent = /[1-9]/.test(r.variables.upstream_bytes_sent);
    // What a client sends too slowly of an import may have been written up to there.
    const isPartial = r.variables.catalog_location === 'bulk' && r.variables.status === '408';
    if (!isRead(r) && wasSent && (isPartial || r.variables.status >= 500)) {
        begin('');
    }
}

/** The change that a page has to show which the service is asked for now. */
function expected() {
    return ngx.shared.catalog_change.get('change') || '';
}

/** Note a page's change, and keep it from being cached if it is none of this generation. */
function notePage(r) {
    note(r);
    const change = changeOf(r.headersOut);
    const before = r.variables.catalog_expected;
    const isJson = /^application\/json\b/.test(r.headersOut['Content-Type']);
    // By contract the service answers with what was there when it was asked, or newer. If it ever
    // does not, as behind a replica that lags, the page is not kept. What has changed since it was
    // asked has begun a generation of its own, and is no reason not to answer those who wait for
    // this one.
    if (!(isJson && change && !isHigher(before, change) && !isOther(before, change))) {
        r.headersOut['X-Accel-Expires'] = '0';
    }
}

/** Whether a write without a position may have been one all the same. */
function mayHaveChanged(r) {
    // What failed halfway may be in the database; a deleted account takes its products along.
    return r.status >= 500 || (r.method === 'DELETE' && r.status < 300);
}

function isRead(r) {
    return r.method === 'GET' || r.method === 'HEAD';
}

/** Begin a generation, in which whoever asks gets a change or newer. */
function begin(change) {
    const changes = ngx.shared.catalog_change;
    // From here on older pages are not found.
    pages.count(1, pages.MAX_AGE_MS);
    // After that, so that who finds the change here may rely on the generation.
    const known = changes.get('change');
    if (change && (isHigher(change, known) || isOther(change, known))) {
        changes.set('change', change);
    }
}

/** Ask the service for its last change again and again, for a while. */
async function watch() {
    const end = Date.now() + WATCH_MS;
    const looks = [];
    while (Date.now() < end) {
        // Among thousands of clients a look takes longer than the time between two, so the next one
        // does not wait for it.
        looks.push(look(Date.now()));
        await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
    }
    await Promise.all(looks);
}

async function look(started) {
    const changes = ngx.shared.catalog_change;
    const before = changes.get('change');
    const generation = ngx.shared.catalog_generation.get('generation');
    let change;
    try {
        const reply = await ngx.fetch(POSITION_URL, {method: 'HEAD'});
        change = reply.headers.get('Catalog-Change') || reply.headers.get('Catalog-Position');
    } catch (e) {
        return;
    }
    if (!change) {
        return;
    }
    ngx.shared.catalog.set('answered', started);
    // Compared with what was known before: what has been noted meanwhile may be newer.
    const isRestored = isHigher(before, change) || isOther(before, change);
    if (isRestored || isHigher(change, changes.get('change'))) {
        begin(change);
    } else if (generation !== undefined) {
        // While nobody looked, an instance of a release before may have written another history up
        // to here: a generation that had expired before is left to that.
        keepGeneration(started + pages.MAX_AGE_MS - Date.now());
    }
    if (isRestored) {
        changes.set('change', change);
    }
}

/** Have the present generation expire so much later than now. */
function keepGeneration(ms) {
    // From when it was asked and not when it answered: what was written in between may be missing.
    if (ms > 0) {
        // Whichever that is: to set the one that was read before would undo what has begun since.
        pages.count(0, ms);
    }
}

/** The last change that an answer includes; empty if it tells none. */
function changeOf(headers) {
    const change = headers['Catalog-Change'] || headers['Catalog-Position'] || '';
    // Creates that were committed together, and so have one token, need one generation together.
    const batch = headers['Catalog-Batch-Position'];
    return batch ? change.replace(/^[0-9]+/, batch) : change;
}

/** Whether a change has a higher position than another, or the other is none. */
function isHigher(change, other) {
    return !other || parseInt(change, 10) > parseInt(other, 10);
}

/** Whether two changes have one position, and are of two histories. */
function isOther(change, other) {
    // An instance of a release before tells no token.
    const areTold = Boolean(change && other) && change.includes('.') && other.includes('.');
    return areTold && change !== other && parseInt(change, 10) === parseInt(other, 10);
}

export default {expected, note, notePage, noteProblem, watch};
