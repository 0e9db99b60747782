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
// `position` is the highest Catalog-Position seen. It tells whether there is anything new.
//
// `answered` is when the service was last asked and did answer; outage.js goes by it.

import pages from './generation.js';

const POSITION_URL = 'http://127.0.0.1:8090/position';

const INTERVAL_MS = 50;

// How long one run of `watch` goes on. It is called again after 2000 ms, and is killed if it has
// not ended by then; its last look may take 200 ms.
const WATCH_MS = 1700;

/** Note the position of an answer, before the client gets it. */
function note(r) {
    const known = ngx.shared.catalog;
    // Creates that were committed together need one generation together.
    const position = positionOf(
        r.headersOut['Catalog-Batch-Position'] || r.headersOut['Catalog-Position'],
    );
    const isRead = r.method === 'GET' || r.method === 'HEAD';
    if (isRead) {
        // Who has seen a change, by whatever way, does not see the time before it here.
        if (position > highest(known)) {
            begin(known, position);
        }
    } else if (position >= 0 ? position !== known.get('position') : mayHaveChanged(r)) {
        // Even if it is lower: of two writes the later may be answered first; or the database was
        // restored from a backup. Only if it is the same, the change is in this generation.
        begin(known, position);
    }
}

/** The position that a page has to show which the service is asked for now. */
function expected() {
    return highest(ngx.shared.catalog);
}

/** Note a page's position, and keep it from being cached if it is none of this generation. */
function notePage(r) {
    note(r);
    const position = positionOf(r.headersOut['Catalog-Position']);
    const isJson = /^application\/json\b/.test(r.headersOut['Content-Type']);
    // By contract the service answers with what was there when it was asked, or newer. If it ever
    // does not, as behind a replica that lags, the page is not kept. What has changed since it was
    // asked has begun a generation of its own, and is no reason not to answer those who wait for
    // this one.
    if (!(isJson && position >= Number(r.variables.catalog_expected))) {
        r.headersOut['X-Accel-Expires'] = '0';
    }
}

/** Whether a write without a position may have been one all the same. */
function mayHaveChanged(r) {
    // What failed halfway may be in the database; a deleted account takes its products along.
    return r.status >= 500 || (r.method === 'DELETE' && r.status < 300);
}

/** Begin a generation, in which whoever asks gets a position or newer. */
function begin(known, position) {
    // From here on older pages are not found.
    pages.count(1, pages.MAX_AGE_MS);
    // After that, so that who finds the position here may rely on the generation.
    if (position > highest(known)) {
        known.set('position', position);
    }
}

/** Ask the service for its position again and again, for a while. */
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
    const known = ngx.shared.catalog;
    const before = known.get('position');
    const generation = ngx.shared.catalog_generation.get('generation');
    let position;
    try {
        const reply = await ngx.fetch(POSITION_URL, {method: 'HEAD'});
        position = positionOf(reply.headers.get('Catalog-Position'));
    } catch (e) {
        return;
    }
    if (!(position >= 0)) {
        return;
    }
    known.set('answered', started);
    const wentBack = position < before;
    if (position > highest(known) || wentBack) {
        begin(known, position);
    } else if (generation !== undefined) {
        // While nobody looked it may have gone back and come up again, as another database: a
        // generation that had expired before is left to that.
        keepGeneration(started + pages.MAX_AGE_MS - Date.now());
    }
    if (wentBack) {
        known.set('position', position);
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

function highest(known) {
    const position = known.get('position');
    return position === undefined ? -1 : position;
}

/** A header's position; NaN if it has none. */
function positionOf(text) {
    return text ? Number(text) : NaN;
}

export default {expected, note, notePage, watch};
