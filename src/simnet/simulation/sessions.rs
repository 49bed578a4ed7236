//! The sessions of a simulation: what stands in for sockets.
//!
//! Layer 2: pure. Each joins a probe to a conversation, or to what becomes of an attempt to connect.
//! Invariants: 1. a session leaves the slab with exactly one result, or cut off by a stop; 2. while our own line is
//! down no byte passes.

use std::sync::Arc;
use std::time::Duration;

use crate::crawl::address::Address;
use crate::crawl::outcome::Fault;
use crate::crawl::probe::Probe;
use crate::crawl::target::Target;
use crate::crawl::time::Now;
use crate::simnet::behaviour::Close;
use crate::simnet::network::{Answer, Network};
use crate::simnet::simulation::faults::{Connect, ECONNREFUSED, ECONNRESET, Faults, Kind};
use crate::simnet::simulation::wire::{Style, Wire};
use crate::simnet::simulation::{LineState, Simulation};
use crate::simnet::talk::Talk;
use crate::simnet::tally::Tally;

/// The far end of a connection.
#[derive(Debug)]
pub(super) enum Link<N: Network> {
    /// Nobody will ever answer.
    Silent,
    /// The attempt was lost on our own line; it is repeated, as Linux does it.
    Lost,
    /// The error with this number arrives then.
    Failing(Duration, i32),
    /// The node accepts then.
    Accepting(Duration, usize),
    /// Connected.
    Open(Talk<N>),
}

#[derive(Debug)]
pub(super) struct Session<N: Network> {
    probe: Probe,
    link: Link<N>,
    wire: Wire,
    dialled_at: Duration,
}

impl<N: Network> Simulation<N> {
    /// Cuts all sessions off: nodes that responded give their result, the others none.
    pub(super) fn cut(&mut self) {
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(session) = self.sessions.get_mut(key) {
                session.probe.handle_stop();
            }
            self.end(key);
        }
    }

    pub(super) fn dial(&mut self, target: Target) {
        let address = target.address();
        if let Some(ledger) = &mut self.ledger {
            // The crawler counts it as open already.
            let open = self.crawler.open() - 1;
            ledger.granted(target, open, self.params.crawler.max_sockets);
        }
        let fault = match self.line {
            LineState::Unreachable => Some(Fault::Line),
            _ => self.faults.as_mut().and_then(Faults::own_fault),
        };
        if let Some(fault) = fault {
            self.digest(!address.to_bits());
            if let Some(ledger) = &mut self.ledger {
                ledger.given_back(address, fault);
            }
            return self.crawler.handle_undialled(target, fault, self.now);
        }
        let place = self.network.place(address);
        // What the crawler put back was not met: only a result that went to the writer counts.
        // Nor does a greeting that only asks whether the line works.
        if !target.is_witness() {
            assert!(!self.met.contains(place, address), "{address} is met twice in a pass");
            assert!(self.dialled.insert(address), "{address} is dialled while it is open");
        }
        if place.is_none() {
            self.strays.push(address);
        }
        self.dials += 1;
        if let Some(ledger) = &mut self.ledger {
            ledger.dialled(self.now.mono, self.params.crawler.connects_per_second);
        }
        self.digest(address.to_bits());
        let link = self.connect(address);
        let wire = self.wire();
        let nonce = self.rng.u64(1..);
        let probe = Probe::new(target, Arc::clone(&self.params.probe), nonce, self.now);
        let dialled_at = self.now.mono;
        let is_over = matches!(link, Link::Failing(at, _) if at <= dialled_at);
        let key = self.sessions.insert(Session { probe, link, wire, dialled_at });
        self.most_open = self.most_open.max(self.sessions.len());
        assert_eq!(self.sessions.len(), self.crawler.open(), "the crawler lost count");
        match is_over {
            true => self.pump(key),
            false => self.arm(key),
        }
    }

    /// What becomes of an attempt to connect.
    fn connect(&mut self, address: Address) -> Link<N> {
        let now = self.now.mono;
        let answer = self.network.dial(address, now, &mut self.rng);
        let mut later = Duration::ZERO;
        match self.faults.as_mut().and_then(Faults::connect) {
            _ if self.line == LineState::Silent => return Link::Lost,
            Some(Connect::Silence) => return Link::Silent,
            Some(Connect::Fails(wait, error)) => return Link::Failing(now + wait, error),
            Some(Connect::Later(wait)) => later = wait,
            None => {}
        }
        match answer {
            Answer::Silence => Link::Silent,
            Answer::Refusal(wait) => Link::Failing(now + wait, ECONNREFUSED),
            Answer::Accepted(wait, node) => Link::Accepting(now + wait + later, node),
        }
    }

    /// The kernel's next attempt on a session whose first ones were lost, if the line is up by then.
    pub(super) fn repeat_lost(&mut self, key: usize) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !matches!(session.link, Link::Lost) {
            return;
        }
        let times = [1, 3, 7].map(|second| session.dialled_at + Duration::from_secs(second));
        let Some(at) = times.into_iter().find(|at| *at >= self.now.mono) else { return };
        let address = session.probe.target().address();
        session.link = match self.network.dial(address, at, &mut self.rng) {
            Answer::Silence => Link::Silent,
            Answer::Refusal(wait) => Link::Failing(at + wait, ECONNREFUSED),
            Answer::Accepted(wait, node) => Link::Accepting(at + wait, node),
        };
    }

    fn wire(&mut self) -> Wire {
        let mut style = if self.params.splits_bytes { Style::Pieces } else { Style::Whole };
        let Some(faults) = &mut self.faults else {
            return Wire::new(style, self.rng.fork());
        };
        if faults.hits(Kind::Jerky) {
            style = Style::Jerky;
        }
        let mut wire = Wire::new(style, faults.rng().fork());
        if faults.hits(Kind::ResetAtOnce) {
            wire.inbound.break_after(0);
        }
        if faults.hits(Kind::ReadBreaks) {
            // Half of them within the first two messages.
            let most = if faults.rng().bool() { 200 } else { 30_000 };
            wire.inbound.break_after(faults.rng().usize(..most));
        }
        if faults.hits(Kind::WriteBreaks) {
            // `version`, `verack` and `getaddr` together have some 170 bytes.
            wire.outbound.break_after(faults.rng().usize(..180));
        }
        wire
    }

    /// Lets both ends of a session talk until neither has anything to say now.
    pub(super) fn pump(&mut self, key: usize) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.probe.handle_timeout(now);
        match session.link {
            _ if self.line != LineState::Up => {}
            Link::Failing(at, error) if at <= now.mono => {
                session.probe.handle_error(&std::io::Error::from_raw_os_error(error), now);
            }
            Link::Accepting(at, node) if at <= now.mono && !session.probe.is_done() => {
                let rng = fastrand::Rng::with_seed(self.rng.u64(..));
                let home = Arc::clone(&self.network);
                session.link = Link::Open(Talk::new(home, node, false, now.mono, rng));
                session.probe.handle_connected(now);
            }
            _ => {}
        }
        if self.line == LineState::Up {
            converse(session, now, &mut self.tally);
        }
        if session.probe.is_done() {
            self.end(key);
        } else {
            self.arm(key);
        }
    }

    pub(super) fn arm(&mut self, key: usize) {
        let Some(session) = self.sessions.get(key) else { return };
        let link = match &session.link {
            _ if self.line != LineState::Up => None,
            Link::Silent | Link::Lost => None,
            Link::Failing(at, _) | Link::Accepting(at, _) => Some(*at),
            Link::Open(conversation) => {
                // With the pipe full the far end waits.
                let has_room = session.wire.inbound.has_room();
                let talk = conversation.poll_timeout().filter(|_| has_room);
                [talk, session.wire.poll_timeout()].into_iter().flatten().min()
            }
        };
        let deadline = [session.probe.poll_timeout(), link].into_iter().flatten().min();
        self.timers.set(key, deadline);
    }

    fn end(&mut self, key: usize) {
        self.timers.set(key, None);
        let Some(mut session) = self.sessions.try_remove(key) else { return };
        if !session.probe.target().is_witness() {
            self.dialled.remove(&session.probe.target().address());
        }
        self.tally.busy += self.now.mono - session.dialled_at;
        if let Link::Open(conversation) = &session.link {
            let seen = conversation.observations();
            self.tally.count_far_end(seen);
            self.bans += u64::from(seen.banned);
            self.complaints += seen.faults.len() as u64;
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.ended();
        }
        let result = session.probe.finished();
        assert!(result.is_some() || self.is_stopped, "a probe ended without a result");
        assert!(session.probe.finished().is_none(), "a probe gives two results");
        if let Some(result) = &result {
            self.tally.count_result(result);
            self.digest(result.target.address().to_bits() ^ (result.outcome as u64) << 56);
            self.digest(result.peers.len() as u64);
        }
        self.crawler.handle_ended(result, self.now);
    }
}

/// Carries bytes between the two ends.
fn converse<N: Network>(session: &mut Session<N>, now: Now, tally: &mut Tally) {
    let Session { probe, link: Link::Open(conversation), wire, .. } = session else { return };
    conversation.handle_timeout(now.mono);
    loop {
        let mut is_quiet = true;
        if let Some(bytes) = probe.poll_transmit() {
            is_quiet = false;
            tally.bytes_out += bytes.len() as u64;
            wire.outbound.push(&bytes, now.mono);
        }
        while let Some(piece) = wire.outbound.pop(now.mono) {
            is_quiet = false;
            conversation.handle_bytes(&piece, now.mono);
        }
        while let Some(piece) = arriving(probe, wire, now) {
            is_quiet = false;
            tally.bytes_in += piece.len() as u64;
            probe.handle_bytes(&piece, now);
        }
        // One at a time: some never end.
        if !probe.is_done()
            && wire.inbound.has_room()
            && let Some(bytes) = conversation.poll_transmit(now.mono)
        {
            is_quiet = false;
            wire.inbound.push(&bytes, now.mono);
        }
        if is_quiet {
            break;
        }
    }
    let reset = || std::io::Error::from_raw_os_error(ECONNRESET);
    match conversation.wants_close() {
        _ if wire.inbound.is_broken() => probe.handle_error(&reset(), now),
        Some(Close::Reset) => probe.handle_error(&reset(), now),
        // What was sent before it arrives before it.
        Some(_) if wire.inbound.is_empty() => probe.handle_closed(now),
        _ => {}
    }
}

/// What the probe reads next, unless it is done.
fn arriving(probe: &Probe, wire: &mut Wire, now: Now) -> Option<Vec<u8>> {
    if probe.is_done() { None } else { wire.inbound.pop(now.mono) }
}
