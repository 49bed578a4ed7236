//! Visits: probes of what a person names, at once and without a database, for `probe` and `poll`.
//!
//! Layer 4. It uses the crawl's own driver and machines, so that both tools see what the crawl would see.
//! Invariants: 1. nothing is dialled that `filter.only` forbids; 2. an address is dialled once, however often
//! it is named; 3. every place that was named gives at least one row.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::commands::Failure;
use crate::commands::crawl::params::probe_params;
use crate::crawl::address::Address;
use crate::crawl::filter::Filter;
use crate::crawl::limiter::Limiter;
use crate::crawl::outcome::{Fault, Outcome};
use crate::crawl::probe::{Probe, ProbeParams};
use crate::crawl::target::{ProbeResult, Target};
use crate::crawl::trace::Trace;
use crate::io::clock::Clock;
use crate::io::config::Config;
use crate::io::driver::{Driver, Ended};
use crate::io::nodes_file::{Host, Line};
use crate::io::process;
use crate::io::resolve::{PATIENCE, Resolved, resolve};
use crate::io::terminal::LiveLine;

/// One address of a place that was named, and what came of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The host as it was named.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// The name that the nodes file gives it.
    pub name: Option<String>,
    /// The address; `None` where the host has none.
    pub address: Option<Address>,
    /// What the probe found, or one line of text that says why there was none.
    pub found: Result<Found, String>,
}

/// What a probe found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The result.
    pub result: ProbeResult,
    /// The conversation.
    pub trace: Trace,
}

impl Row {
    /// How the probe ended; `None` if there was none.
    pub fn outcome(&self) -> Option<Outcome> {
        self.found.as_ref().ok().map(|found| found.result.outcome)
    }

    /// Whether the node said its `version`.
    pub fn has_responded(&self) -> bool {
        self.outcome() == Some(Outcome::Responded)
    }

    /// `ADDRESS`, or what was named where it has none.
    pub fn place(&self) -> String {
        match self.address {
            Some(address) => address.to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// The name to show: that of the nodes file, else the host's if it is one.
    pub fn label(&self) -> Option<String> {
        self.name.clone().or_else(|| match &self.host {
            Host::Name(name) => Some(name.clone()),
            Host::Ip(_) => None,
        })
    }
}

/// Makes visits. It holds what a probe goes by.
pub struct Visitor {
    params: Arc<ProbeParams>,
    filter: Filter,
    max_sockets: usize,
    limiter: Limiter,
    clock: Clock,
    driver: Driver,
    rng: fastrand::Rng,
    wants_peers: bool,
}

impl Visitor {
    /// Makes a visitor by the configuration; with `wants_peers`, it asks every node for its peers.
    ///
    /// # Errors
    /// The system has no poll or no randomness to give.
    pub fn new(config: &Config, wants_peers: bool) -> Result<Self, Failure> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| Failure::Failed(format!("no randomness to be had: {error}")))?;
        let driver = Driver::new()
            .map_err(|error| Failure::Failed(format!("opening the poll failed: {error}")))?;
        // Where the limit cannot be raised, fewer are open at once.
        let _ = process::raise_open_files();
        let files = process::open_files().unwrap_or(u64::MAX).saturating_sub(SPARE_FILES).max(1);
        let fits = usize::try_from(files).unwrap_or(usize::MAX);
        Ok(Self {
            params: Arc::new(probe_params(config)),
            // The exclude files are no matter here: what a person names is subject to `only` alone.
            filter: Filter::new(&[], &config.filter.only),
            max_sockets: fits.min(config.crawl.max_sockets as usize),
            limiter: Limiter::new(config.crawl.connects_per_second),
            clock: Clock::new(),
            driver,
            rng: fastrand::Rng::with_seed(u64::from_le_bytes(seed)),
            wants_peers,
        })
    }

    /// Looks up and probes all of `lines` side by side. `what` is the first word of the live line on a terminal.
    ///
    /// # Errors
    /// Polling itself fails.
    pub fn visit(&mut self, lines: Vec<Line>, what: &str) -> Result<Vec<Row>, Failure> {
        let mut live = LiveLine::open();
        let mut show = |text: &str| {
            if let Some(live) = &mut live {
                live.show(text);
            }
        };
        show(&format!("{what}: looking up names"));
        let (mut rows, places) = self.rows(look_up(lines)?);
        let admitted = |address: &Address| self.filter.admits_named(*address);
        let mut queue: VecDeque<Address> =
            rows.iter().filter_map(|row| row.address).filter(admitted).collect();
        let (all, mut done) = (queue.len(), 0);
        let mut ended = Vec::new();
        while !queue.is_empty() || self.driver.open() > 0 {
            let wait = self.dial(&mut queue, &mut ended, &mut |address, fault| {
                if let Some(row) = places.get(&address).and_then(|index| rows.get_mut(*index)) {
                    row.found = Err(fault_text(fault).to_owned());
                }
            });
            show(&format!("{what}: {done} of {all} done, {} open", self.driver.open()));
            // What failed at once is looked at without waiting.
            let wait = if ended.is_empty() { wait } else { Some(Duration::ZERO) };
            self.driver
                .turn(wait, &self.clock, &mut ended)
                .map_err(|error| Failure::Failed(format!("polling failed: {error}")))?;
            for ended in ended.drain(..) {
                done += 1;
                let index = places.get(&ended.target.address());
                if let Some(row) = index.and_then(|index| rows.get_mut(*index))
                    && let Some(result) = ended.result
                {
                    row.found = Ok(Found { result, trace: *ended.trace.unwrap_or_default() });
                }
            }
        }
        Ok(rows)
    }

    /// The time of both clocks.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Goes by these words instead of the configuration's.
    pub fn set_manners(&mut self, protocol_version: Option<i32>, user_agent: Option<&str>) {
        let params = Arc::make_mut(&mut self.params);
        if let Some(version) = protocol_version {
            params.protocol_version = version;
        }
        if let Some(agent) = user_agent {
            params.user_agent = agent.as_bytes().to_vec();
        }
    }

    /// One row per address, each address once, and one per place without any; and the rows of the addresses.
    fn rows(&self, resolved: Vec<Resolved>) -> (Vec<Row>, HashMap<Address, usize>) {
        let mut rows: Vec<Row> = Vec::new();
        let mut places: HashMap<Address, usize> = HashMap::new();
        for Resolved { line, addresses } in resolved {
            let row = |address, why: &str| Row {
                host: line.host.clone(),
                port: line.port,
                name: line.name.clone(),
                address,
                found: Err(why.to_owned()),
            };
            match addresses {
                Err(why) => rows.push(row(None, &why)),
                Ok(addresses) => {
                    for address in addresses {
                        if let Some(first) = places.get(&address).and_then(|at| rows.get_mut(*at)) {
                            first.name = first.name.take().or_else(|| line.name.clone());
                            continue;
                        }
                        places.insert(address, rows.len());
                        let is_admitted = self.filter.admits_named(address);
                        rows.push(row(Some(address), if is_admitted { NOT_YET } else { OUTSIDE }));
                    }
                }
            }
        }
        (rows, places)
    }

    /// Dials what may be dialled now, and says how long the next turn may wait, `None` for until something
    /// happens.
    fn dial(
        &mut self,
        queue: &mut VecDeque<Address>,
        ended: &mut Vec<Ended>,
        failed: &mut dyn FnMut(Address, Fault),
    ) -> Option<Duration> {
        while self.driver.open() < self.max_sockets {
            let now = self.clock.now();
            let next = self.limiter.next(now.mono);
            if next > now.mono {
                return Some(next - now.mono);
            }
            let address = queue.pop_front()?;
            self.limiter.start(now.mono);
            let target = Target::node(address, self.wants_peers);
            // Never 0: gocoin bans for it.
            let probe = Probe::new(target, Arc::clone(&self.params), self.rng.u64(1..), now);
            match self.driver.begin(probe.traced(), now) {
                Ok(None) => {}
                Ok(Some(one)) => ended.push(one),
                Err(Fault::Descriptors | Fault::Ports) if self.driver.open() > 0 => {
                    // It gets what one of the open ones gives back.
                    queue.push_front(address);
                    return None;
                }
                Err(fault) => failed(address, fault),
            }
        }
        None
    }
}

/// Exit status 1 where not all have responded, with how many.
///
/// # Errors
/// Not all have responded.
pub fn judge(rows: &[Row]) -> Result<(), Failure> {
    match rows.iter().filter(|row| !row.has_responded()).count() {
        0 => Ok(()),
        down => Err(Failure::Failed(format!("{down} of {} did not respond", rows.len()))),
    }
}

fn look_up(lines: Vec<Line>) -> Result<Vec<Resolved>, Failure> {
    let (sender, receiver) = channel();
    resolve(lines, PATIENCE, move |resolved| {
        // The other end waits below.
        let _ = sender.send(resolved);
    });
    receiver.recv().map_err(|_| Failure::Failed("looking up host names failed".to_owned()))
}

fn fault_text(fault: Fault) -> &'static str {
    match fault {
        Fault::Descriptors => "not dialled: no file descriptor left (ulimit -n)",
        Fault::Ports => "not dialled: this host has no local port or buffer left",
        Fault::Line => "not dialled: this host has no route to it (is the line up?)",
        Fault::Forbidden => "not dialled: this host's own firewall or routes forbid it",
    }
}

const OUTSIDE: &str = "not dialled: filter.only does not contain it";
const NOT_YET: &str = "not dialled";
/// Descriptors for everything that is no probe: the poll, look-ups, files.
const SPARE_FILES: u64 = 64;
