//! `Ranks`: the candidates that wait in this pass, the likely ones first.
//!
//! Sans-I/O: plain data, integers only. A candidate stands in a cell. One that was never probed:
//! how many unrelated sources name it, and how long ago it was last seen, as they say. One that
//! failed: how many claim to have seen it since, how often it failed, and how it failed last. The
//! share of each cell that responds is learned as probes end, and the best cell goes next; one pick
//! in `EXPLORATION` goes to any candidate, so that none starves and a poor cell can improve.
//!
//! Lists are bounded: the address table holds the truth, and a list that ran empty is refilled.
//!
//! Invariants:
//! 1. No cell lists more than [`MAX_LISTED`] candidates.
//! 2. A share is at most [`ONE`].

/// Classes of the number of sources that name a candidate.
pub const VOTE_CLASSES: usize = 8;
/// Classes of the time since it was last seen.
pub const AGE_CLASSES: usize = 6;
/// Classes of failures and of the last outcome.
pub const FAILURE_CLASSES: usize = 8;
/// Number of cells of candidates that were never probed.
pub const FRESH_CELLS: usize = VOTE_CLASSES * AGE_CLASSES;
/// Number of cells.
pub const CELLS: usize = FRESH_CELLS + VOTE_CLASSES * FAILURE_CLASSES + 1;
/// The cell of candidates on ports of other services. It is never explored and always the last.
pub const AVOIDED_CELL: usize = CELLS - 1;
/// One pick in this many goes to any candidate.
const EXPLORATION: u32 = 16;
/// Both counts are halved at this many trials, so that what was learned can be unlearned.
const MAX_TRIED: u32 = 1_024;
/// Weight of a cell's prior, in trials.
const PRIOR_WEIGHT: u64 = 16;
/// From this share on a candidate counts as likely: a socket finds a node sooner among such ones
/// than it gets the peers of a node of old software.
const LIKELY: u64 = ONE / 16;
/// Below this share a candidate may be carried over to a later pass.
const POOR: u64 = ONE / 256;
/// Maximum number of candidates listed per cell.
pub const MAX_LISTED: usize = 16_384;
/// A share of one.
pub const ONE: u64 = 1 << 16;

/// The parts of the ranking: all are in use, but `benches/world.rs` measures what each is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankingParams {
    /// The best cell goes first; else any candidate does.
    pub has_order: bool,
    /// Some picks go to any candidate.
    pub explores: bool,
    /// The sources that name a candidate are counted.
    pub counts_votes: bool,
    /// The words of a source count up to a ration per pass.
    pub rations_votes: bool,
    /// A node is asked for its peers when it composes a new reply.
    pub follows_caches: bool,
    /// Candidates of poor cells are carried over to later passes.
    pub carries_over: bool,
}

impl Default for RankingParams {
    fn default() -> Self {
        Self {
            has_order: true,
            explores: true,
            counts_votes: true,
            rations_votes: true,
            follows_caches: true,
            carries_over: true,
        }
    }
}

/// Results of the candidates of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    tried: u32,
    responded: u32,
}

impl Record {
    fn learn(&mut self, responded: bool) {
        self.tried += 1;
        self.responded += u32::from(responded);
        if self.tried >= MAX_TRIED {
            self.tried /= 2;
            self.responded /= 2;
        }
    }

    /// The same counts, from a row of the database.
    fn restored(tried: u32, responded: u32) -> Option<Self> {
        (responded <= tried && tried < MAX_TRIED).then_some(Self { tried, responded })
    }

    fn share(self, prior: u64) -> u64 {
        let weighted = u64::from(self.responded) * ONE + PRIOR_WEIGHT * prior;
        weighted / (u64::from(self.tried) + PRIOR_WEIGHT)
    }
}

/// What was learned of a grid of cells, its rows and its columns.
#[derive(Clone, Debug)]
struct Grid {
    columns: usize,
    cells: Vec<Record>,
    rows: Vec<Record>,
    column: Vec<Record>,
    all: Record,
    prior: u64,
}

impl Grid {
    fn new(rows: usize, columns: usize, prior: u64) -> Self {
        let records = |count| vec![Record::default(); count];
        Self {
            columns,
            cells: records(rows * columns),
            rows: records(rows),
            column: records(columns),
            all: Record::default(),
            prior,
        }
    }

    fn learn(&mut self, cell: usize, responded: bool) {
        self.cells[cell].learn(responded);
        self.rows[cell / self.columns].learn(responded);
        self.column[cell % self.columns].learn(responded);
        self.all.learn(responded);
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.cells.iter().chain(&self.rows).chain(&self.column).chain([&self.all])
    }

    fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        let of_classes = self.rows.iter_mut().chain(&mut self.column);
        self.cells.iter_mut().chain(of_classes).chain([&mut self.all])
    }

    /// The estimated share of a cell that responds. Its own trials count; before there are any, its
    /// row and column do; before those, more votes and later sightings are better.
    fn share(&self, cell: usize) -> u64 {
        let (row, column) = (cell / self.columns, cell % self.columns);
        let all = self.all.share(self.prior);
        let of_row = self.rows[row].share(all * (row as u64 + 2) / 4);
        let of_column = self.column[column].share(all * (self.columns - column) as u64 / 4);
        let prior = (of_row * of_column / all.max(1)).min(ONE * 15 / 16);
        self.cells[cell].share(prior)
    }
}

#[derive(Debug, Default)]
struct List {
    addresses: Vec<u64>,
    /// Number of candidates that found no room.
    unlisted: usize,
}

/// The candidate to hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// This address, listed in this cell; it may have moved or gone since.
    Candidate {
        /// The cell.
        cell: usize,
        /// The address, as bits.
        address: u64,
    },
    /// The lists must be refilled from the table.
    Refill,
    /// None is listed.
    None,
}

/// The lists and what was learned; see the module.
#[derive(Debug)]
pub struct Ranks {
    params: RankingParams,
    lists: Vec<List>,
    fresh: Grid,
    failed: Grid,
}

impl Default for Ranks {
    fn default() -> Self {
        Self {
            params: RankingParams::default(),
            lists: (0..CELLS).map(|_| List::default()).collect(),
            fresh: Grid::new(VOTE_CLASSES, AGE_CLASSES, ONE / 8),
            failed: Grid::new(VOTE_CLASSES, FAILURE_CLASSES, ONE / 64),
        }
    }
}

/// The class of a number of votes.
fn vote_class(votes: u32) -> usize {
    match votes {
        0..=1 => 0,
        2 => 1,
        3 => 2,
        4 => 3,
        5..=6 => 4,
        7..=9 => 5,
        10..=12 => 6,
        _ => 7,
    }
}

/// The cell of a candidate that was never probed.
pub fn fresh_cell(votes: u32, hours_unseen: i32) -> usize {
    let age = match hours_unseen {
        ..=8 => 0,
        9..=16 => 1,
        17..=28 => 2,
        29..=52 => 3,
        53..=192 => 4,
        _ => 5,
    };
    vote_class(votes) * AGE_CLASSES + age
}

/// The cell of a candidate that failed: the row is the number of kinds of sources that claim to
/// have seen it since.
pub fn failed_cell(sightings: u32, failures: u8, was_silent: bool) -> usize {
    let row = match sightings {
        0..=3 => sightings as usize,
        4..=5 => 4,
        6..=8 => 5,
        9..=11 => 6,
        _ => 7,
    };
    let failures = match failures {
        0..=1 => 0,
        2..=3 => 1,
        4..=6 => 2,
        _ => 3,
    };
    FRESH_CELLS + row * FAILURE_CLASSES + 2 * failures + usize::from(was_silent)
}

impl Ranks {
    /// Replaces the settings.
    pub fn set_params(&mut self, params: RankingParams) {
        self.params = params;
    }

    /// What was learned, as numbers for the database.
    pub fn learned(&self) -> Vec<i32> {
        let records = self.fresh.records().chain(self.failed.records());
        let number = |count| i32::try_from(count).unwrap_or(0);
        records.flat_map(|record| [record.tried, record.responded]).map(number).collect()
    }

    /// Restores what [`Ranks::learned`] returned; numbers of another version are ignored.
    pub fn restore(&mut self, learned: &[i32]) {
        let number = |count: i32| u32::try_from(count).ok();
        let records: Option<Vec<Record>> = learned
            .chunks_exact(2)
            .map(|pair| Record::restored(number(pair[0])?, number(pair[1])?))
            .collect();
        let mine: Vec<&mut Record> =
            self.fresh.records_mut().chain(self.failed.records_mut()).collect();
        if let Some(records) = records
            && learned.len() == 2 * mine.len()
        {
            mine.into_iter().zip(records).for_each(|(old, restored)| *old = restored);
        }
    }

    /// Whether a likely candidate is listed.
    pub fn has_likely(&self) -> bool {
        self.best().is_some_and(|cell| self.share(cell) >= LIKELY)
    }

    /// Whether every listed candidate is of a poor cell.
    pub fn has_only_poor(&self) -> bool {
        self.best().is_none_or(|cell| self.is_poor(cell))
    }

    /// Whether the candidates of a cell hardly ever respond.
    pub fn is_poor(&self, cell: usize) -> bool {
        self.share(cell) < POOR
    }

    /// Empties the lists; what was learned stays.
    pub fn clear(&mut self) {
        for list in &mut self.lists {
            *list = List::default();
        }
    }

    /// Lists a candidate in a cell.
    pub fn push(&mut self, cell: usize, address: u64) {
        let list = &mut self.lists[cell];
        if list.addresses.len() < MAX_LISTED {
            list.addresses.push(address);
        } else {
            list.unlisted += 1;
        }
    }

    /// Picks the next candidate and removes it from its list.
    pub fn pop(&mut self, rng: &mut fastrand::Rng) -> Pick {
        let is_explored = self.params.explores && rng.u32(..EXPLORATION) == 0;
        let any = if is_explored || !self.params.has_order { self.any(rng) } else { None };
        let Some(cell) = any.or_else(|| self.best()) else { return Pick::None };
        let list = &mut self.lists[cell].addresses;
        if list.is_empty() {
            return Pick::Refill;
        }
        let address = list.swap_remove(rng.usize(..list.len()));
        if list.is_empty() {
            *list = Vec::new();
        }
        Pick::Candidate { cell, address }
    }

    /// Handles the result of a candidate of a cell.
    pub fn learn(&mut self, cell: usize, responded: bool) {
        match cell.checked_sub(FRESH_CELLS) {
            None => self.fresh.learn(cell, responded),
            Some(_) if cell == AVOIDED_CELL => {}
            Some(cell) => self.failed.learn(cell, responded),
        }
    }

    /// The estimated share of a cell that responds, in units of 1 / [`ONE`].
    pub fn share(&self, cell: usize) -> u64 {
        match cell.checked_sub(FRESH_CELLS) {
            None => self.fresh.share(cell),
            Some(_) if cell == AVOIDED_CELL => 0,
            Some(cell) => self.failed.share(cell),
        }
    }

    fn best(&self) -> Option<usize> {
        let is_filled = |cell: &usize| {
            let list = &self.lists[*cell];
            !list.addresses.is_empty() || list.unlisted > 0
        };
        (0..CELLS).filter(is_filled).max_by_key(|cell| (self.share(*cell), usize::MAX - cell))
    }

    /// The cell of a random listed candidate.
    fn any(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let lists = &self.lists[..AVOIDED_CELL];
        let listed: usize = lists.iter().map(|list| list.addresses.len()).sum();
        if listed == 0 {
            return None;
        }
        let mut at = rng.usize(..listed);
        lists.iter().position(|list| {
            let is_here = at < list.addresses.len();
            at = at.saturating_sub(list.addresses.len());
            is_here
        })
    }
}
