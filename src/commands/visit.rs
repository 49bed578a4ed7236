//! Probes of the hosts that an operator names, without a database: `probe` and `poll`.
//!
//! Uses the driver and the probes of the crawl, so that both commands see what the crawl would see.
//! Invariants:
//! 1. an address that `filter` excludes is never dialled;
//! 2. an address is dialled once, however often it is named;
//! 3. every host has at least one row in the result.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::commands::Failure;
use crate::commands::crawl::params::probe_params;
use crate::config::Config;
use crate::net::driver::{Driver, Ended, MAX_DIALS_PER_TURN};
use crate::net::nodes_file::{Host, Line};
use crate::net::resolve::{RESOLVE_TIMEOUT, Resolved, admitted, resolve};
use crate::sys::clock::{Clock, LoopClock};
use crate::sys::process;
use crate::sys::terminal::StatusLine;
use bitdash_core::lookup::species::{Lineage, Rules};
use bitdash_core::probe::trace::Trace;
use bitdash_core::probe::{Probe, ProbeParams};
use bitdash_core::schedule::limiter::Limiter;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::outcome::{Fault, Outcome};
use bitdash_core::vocabulary::target::{ProbeResult, Target, VersionInfo};

/// The result for one address of a host.
#[derive(Clone, Debug)]
pub struct Row {
    /// The host as given by the operator.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// Its name in the nodes file.
    pub name: Option<String>,
    /// The address; `None` if the host has none.
    pub address: Option<Address>,
    /// The result of the probe, or one line that says why there was no probe.
    pub found: Result<Found, String>,
}

/// The result of a probe.
#[derive(Clone, Debug)]
pub struct Found {
    /// The result.
    pub result: ProbeResult,
    /// The conversation.
    pub trace: Trace,
    /// The lineage of its software, if it responded.
    pub lineage: Option<Lineage>,
}

impl Row {
    /// The outcome of the probe; `None` if there was no probe.
    pub fn outcome(&self) -> Option<Outcome> {
        self.found.as_ref().ok().map(|found| found.result.outcome)
    }

    /// Whether the node sent its `version`.
    pub fn has_responded(&self) -> bool {
        self.outcome() == Some(Outcome::Responded)
    }

    /// The address, or the host and port if there is none.
    pub fn endpoint(&self) -> String {
        match self.address {
            Some(address) => address.to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// The name in the nodes file, or else the host name.
    pub fn label(&self) -> Option<String> {
        self.name.clone().or_else(|| match &self.host {
            Host::Name(name) => Some(name.clone()),
            Host::Ip(_) => None,
        })
    }
}

/// What hosts are visited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// `probe`: the operator typed them.
    Probe {
        /// Whether every node is asked for its peers.
        wants_peers: bool,
    },
    /// `poll`: they are in a nodes file.
    Poll,
}

/// Probes lists of hosts; holds the settings and the driver.
pub struct Visitor {
    params: Arc<ProbeParams>,
    rules: Arc<Rules>,
    filter: Filter,
    max_sockets: usize,
    limiter: Limiter,
    clock: Clock,
    driver: Driver,
    rng: fastrand::Rng,
    purpose: Purpose,
}

impl Visitor {
    /// A visitor with the settings of `config` and the rules of species.
    ///
    /// # Errors
    /// An exclude file is invalid; the system provides no poll or no random bytes.
    pub fn new(config: &Config, rules: Arc<Rules>, purpose: Purpose) -> Result<Self, Failure> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| Failure::Failed(format!("cannot obtain random bytes: {error}")))?;
        let driver = Driver::new()
            .map_err(|error| Failure::Failed(format!("cannot open the poll: {error}")))?;
        // If the limit cannot be raised, fewer sockets are open at a time.
        let _ = process::raise_open_files();
        let files = process::open_files().unwrap_or(u64::MAX).saturating_sub(SPARE_FILES).max(1);
        let fits = usize::try_from(files).unwrap_or(usize::MAX);
        Ok(Self {
            params: Arc::new(probe_params(config)),
            rules,
            filter: config.load_filter()?,
            max_sockets: fits.min(config.crawl.max_sockets as usize),
            limiter: Limiter::new(config.crawl.connects_per_second),
            clock: Clock::new(),
            driver,
            rng: fastrand::Rng::with_seed(u64::from_le_bytes(seed)),
            purpose,
        })
    }

    /// Resolves and probes all `lines` in parallel.
    ///
    /// # Errors
    /// Polling fails.
    pub fn visit(&mut self, lines: Vec<Line>) -> Result<Vec<Row>, Failure> {
        let clock = LoopClock::new(self.clock);
        let what = if self.purpose == Purpose::Poll { "poll" } else { "probe" };
        let mut status = StatusLine::open();
        let mut show = |text: &str| {
            if let Some(status) = &mut status {
                status.show(text);
            }
        };
        show(&format!("{what}: resolving names"));
        let (mut rows, places) = self.rows(resolve_all(lines)?);
        let is_dialled = |address: &Address| places.contains_key(address);
        let mut queue: VecDeque<Address> =
            rows.iter().filter_map(|row| row.address).filter(is_dialled).collect();
        let (all, mut done) = (queue.len(), 0);
        let mut ended = Vec::new();
        while !queue.is_empty() || self.driver.open() > 0 {
            let wait = self.dial(&clock, &mut queue, &mut ended, &mut |address, fault| {
                if let Some(row) = places.get(&address).and_then(|index| rows.get_mut(*index)) {
                    row.found = Err(fault_text(fault).to_owned());
                }
            });
            show(&format!("{what}: {done} of {all} done, {} open", self.driver.open()));
            // Handle immediate failures without waiting.
            let wait = if ended.is_empty() { wait } else { Some(Duration::ZERO) };
            self.driver
                .turn(wait, &clock, &mut ended)
                .map_err(|error| Failure::Failed(format!("polling failed: {error}")))?;
            for ended in ended.drain(..) {
                done += 1;
                let index = places.get(&ended.target.address());
                if let Some(row) = index.and_then(|index| rows.get_mut(*index))
                    && let Some(result) = ended.result
                {
                    let trace = *ended.trace.unwrap_or_default();
                    let lineage = result.version.as_ref().map(|version| self.lineage(version));
                    row.found = Ok(Found { result, trace, lineage });
                }
            }
        }
        Ok(rows)
    }

    fn lineage(&self, version: &VersionInfo) -> Lineage {
        let agent = version.user_agent.as_deref();
        self.rules.classify(agent, version.protocol_version, version.services)
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Overrides the claims of the configuration.
    pub fn set_claims(&mut self, protocol_version: Option<i32>, user_agent: Option<&str>) {
        let params = Arc::make_mut(&mut self.params);
        if let Some(version) = protocol_version {
            params.protocol_version = version;
        }
        if let Some(agent) = user_agent {
            params.user_agent = agent.as_bytes().to_vec();
        }
    }

    /// One row per distinct address and one per host without any; and the index of each address.
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
            let is_vouched_for = line.name.is_some() || self.purpose != Purpose::Poll;
            match admitted(&line, addresses, is_vouched_for, &self.filter) {
                Err(why) => rows.push(row(line.address(), &why)),
                Ok(addresses) => {
                    for address in addresses {
                        if let Some(first) = places.get(&address).and_then(|at| rows.get_mut(*at)) {
                            first.name = first.name.take().or_else(|| line.name.clone());
                            continue;
                        }
                        places.insert(address, rows.len());
                        rows.push(row(Some(address), NOT_YET));
                    }
                }
            }
        }
        (rows, places)
    }

    /// Dials as many addresses as the limits allow and returns the maximum duration of the next
    /// turn; `None` for no limit.
    fn dial(
        &mut self,
        clock: &LoopClock,
        queue: &mut VecDeque<Address>,
        ended: &mut Vec<Ended>,
        failed: &mut dyn FnMut(Address, Fault),
    ) -> Option<Duration> {
        for _ in 0..MAX_DIALS_PER_TURN {
            if self.driver.open() >= self.max_sockets {
                return None;
            }
            let now = clock.now();
            let next = self.limiter.next(now.mono);
            if next > now.mono {
                return Some(next - now.mono);
            }
            let address = queue.pop_front()?;
            self.limiter.start(now.mono);
            let wants_peers = self.purpose == Purpose::Probe { wants_peers: true };
            let target = Target::node(address, wants_peers);
            // A nonce of 0 would make gocoin ban us.
            let probe = Probe::new(target, Arc::clone(&self.params), self.rng.u64(1..), now);
            match self.driver.begin(probe.traced(), clock) {
                Ok(None) => {}
                Ok(Some(one)) => ended.push(one),
                Err(Fault::Descriptors | Fault::Ports) if self.driver.open() > 0 => {
                    // Retry when an open socket is closed.
                    queue.push_front(address);
                    return None;
                }
                Err(fault) => failed(address, fault),
            }
        }
        Some(Duration::ZERO)
    }
}

/// The exit status of a probed list.
///
/// # Errors
/// Not all nodes have responded.
pub fn judge(rows: &[Row]) -> Result<(), Failure> {
    match rows.iter().filter(|row| !row.has_responded()).count() {
        0 => Ok(()),
        down => Err(Failure::Failed(format!("{down} of {} did not respond", rows.len()))),
    }
}

fn resolve_all(lines: Vec<Line>) -> Result<Vec<Resolved>, Failure> {
    let (sender, receiver) = channel();
    resolve(lines, RESOLVE_TIMEOUT, move |resolved| {
        // The receiver waits below.
        let _ = sender.send(resolved);
    });
    receiver.recv().map_err(|_| Failure::Failed("resolving host names failed".to_owned()))
}

fn fault_text(fault: Fault) -> &'static str {
    match fault {
        Fault::Descriptors => "not dialled: no file descriptors left (ulimit -n)",
        Fault::Ports => "not dialled: no local ports or buffers left",
        Fault::Uplink => "not dialled: no route to it (is the uplink up?)",
        Fault::Forbidden => "not dialled: forbidden by the local firewall or routes",
    }
}

const NOT_YET: &str = "not dialled";
/// File descriptors reserved for the poll, DNS and files.
const SPARE_FILES: u64 = 64;
