// What nginx knows of the database: enough to never answer from the cache with what was.
//
// `generation` is part of every cached page's key. A new one begins with every change that is heard
// of, before the client who made it hears of it. A page was asked for after its generation had
// begun, so it shows whatever had been acknowledged by then. Generations are drawn and not counted:
// of two workers that begin one at a time either may win, and both are new. "The higher of two
// positions" would be a race, and that is why the key holds no position.
//
// `position` is the highest Catalog-Position seen. It tells whether there is anything new.
//
// `checked` is when the present generation was last known to be up to date: when it began, or when
// the service was last asked for its position and there was nothing new. That is how writes that go
// around this nginx are noticed; and when it is too long ago, the next request begins a generation.
//
// `answered` is when the service was last asked and did answer; outage.js goes by it.

const POSITION_URL = 'http://127.0.0.1:8090/position';

// Writes that go around this nginx show within 250 ms, by contract; some of it is for two workers
// that begin a generation at the same time, and for the answer's own way.
const MAX_AGE_MS = 200;

const INTERVAL_MS = 50;

// How long one run of `watch` goes on. It is called again after 2000 ms, and is killed if it has
// not ended by then; its last look may take 200 ms.
const WATCH_MS = 1700;

/** The present generation. Called for every page. */
function generation() {
    const now = Date.now();
    const age = now - ngx.shared.catalog.get('checked');
    // Without a number in `checked` both comparisons are false. A clock that is set back as well.
    if (!(age >= 0 && age <= MAX_AGE_MS)) {
        // A busy nginx may be late to look. To pass all on to the service would not help it then.
        draw();
        ngx.shared.catalog.set('checked', now);
    }
    return ngx.shared.catalog_generation.get('generation');
}

/** Whether a page from the service must not be cached: '' or '1'. */
function unfit(r) {
    const position = positionOf(r.variables.upstream_http_catalog_position);
    const isPage = /^application\/json\b/.test(r.variables.upstream_http_content_type);
    // By contract the service answers with what was there when it was asked, or newer. If it ever
    // does not, as behind a replica that lags, the page is not kept.
    return isPage && position >= ngx.shared.catalog.get('position') ? '' : '1';
}

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

/** Whether a write without a position may have been one all the same. */
function mayHaveChanged(r) {
    // What failed halfway may be in the database; a deleted account takes its products along.
    return r.status >= 500 || (r.method === 'DELETE' && r.status < 300);
}

/** Begin a generation, in which whoever asks gets a position or newer. */
function begin(known, position) {
    // From here on older pages are not found.
    draw();
    // After that, so that who finds the position here may rely on the generation.
    if (position > highest(known)) {
        known.set('position', position);
    }
}

/** A generation that no page was cached under, by an earlier run of nginx either. */
function draw() {
    const drawn = Date.now().toString(36) + Math.random().toString(36).slice(1);
    ngx.shared.catalog_generation.set('generation', drawn);
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
    // While nobody looked it may have gone back and come up again, as another database.
    const looksAgain = !(started - known.get('checked') <= MAX_AGE_MS);
    if (position > highest(known) || wentBack || looksAgain) {
        begin(known, position);
    }
    if (wentBack) {
        known.set('position', position);
    }
    // When it was asked and not when it answered: what was written in between may be missing.
    if (!(known.get('checked') > started)) {
        known.set('checked', started);
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

export default {generation, unfit, note, watch};
