//! The sessions of a simulation, in place of sockets. Sans-I/O.
//!
//! A session connects a probe to a peer or to a failing connection attempt.
//!
//! Invariants:
//! 1. A session leaves the slab with exactly one result, or is aborted by a stop.
//! 2. No byte passes while the uplink is down.

use std::sync::Arc;
use std::time::Duration;

use crate::network::{Answer, Network};
use crate::node::conversation::Close;
use crate::node::peer::{self, Peer};
use crate::sim::faults::{Connect, ECONNREFUSED, ECONNRESET, Faults, Kind};
use crate::sim::wire::{Style, Wire};
use crate::sim::{Simulation, UplinkState};
use crate::verify::conservation::Conservation;
use bitdash_core::probe::Probe;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Fault;
use bitdash_core::vocabulary::target::Target;
use bitdash_core::vocabulary::time::Now;

/// The remote end of a connection.
#[derive(Debug)]
pub(super) enum Link {
    /// Never answers.
    Silent,
    /// The attempt was lost on our uplink; the kernel retries it.
    Lost,
    /// Fails with this error number at this time.
    Failing(Duration, i32),
    /// The peer at this place accepts at this time.
    Accepting(Duration, usize),
    /// Connected.
    Open(Box<dyn Peer>),
}

#[derive(Debug)]
pub(super) struct Session {
    probe: Probe,
    link: Link,
    wire: Wire,
    dialled_at: Duration,
}

impl<N: Network> Simulation<N> {
    /// Aborts all sessions: nodes that responded have a result, the others none.
    pub(super) fn abort_all(&mut self) {
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(session) = self.sessions.get_mut(key) {
                self.asking -= usize::from(session.probe.is_asking());
                session.probe.handle_stop();
            }
            self.end(key);
        }
    }

    pub(super) fn dial(&mut self, target: Target) {
        let address = target.address();
        if let Some(shadow) = &mut self.shadow {
            // The crawler already counts it as open.
            let open = self.crawler.open() - 1;
            shadow.granted(target, open, self.params.crawler.max_sockets);
        }
        let fault = match self.uplink {
            UplinkState::Unreachable => Some(Fault::Uplink),
            _ => self.faults.as_mut().and_then(Faults::own_fault),
        };
        if let Some(fault) = fault {
            self.digest(!address.to_bits());
            if let Some(shadow) = &mut self.shadow {
                shadow.returned(address, fault);
            }
            return self.crawler.handle_undialled(target, fault, self.now);
        }
        let place = self.network.place(address);
        // Targets that were put back have no result, and handshake-only probes of reference nodes
        // do not count.
        if !target.is_reference() {
            let was_probed = self.probed.contains(place, address);
            let is_due = !was_probed || target.is_follow_up() && self.greeted.contains(&address);
            assert!(is_due, "{address} is dialled twice in a pass");
            assert!(self.dialled.insert(address), "{address} is dialled while it is open");
        }
        if place.is_none() {
            self.strays.push(address);
        }
        self.dials += 1;
        if let Some(shadow) = &mut self.shadow {
            shadow.dialled(self.now.mono, self.params.crawler.connects_per_second);
        }
        self.digest(address.to_bits());
        let link = self.connect(address);
        let wire = self.wire();
        let nonce = self.rng.u64(1..);
        let probe = Probe::new(target, Arc::clone(&self.params.probe), nonce, self.now);
        let dialled_at = self.now.mono;
        let is_over = matches!(link, Link::Failing(at, _) if at <= dialled_at);
        let key = self.sessions.insert(Session { probe, link, wire, dialled_at });
        self.max_open = self.max_open.max(self.sessions.len());
        assert_eq!(
            self.sessions.len(),
            self.crawler.open(),
            "open sessions: the simulation's count, and the crawler's"
        );
        if is_over { self.pump(key) } else { self.arm(key) }
    }

    /// The remote end of a new connection attempt.
    fn connect(&mut self, address: Address) -> Link {
        let now = self.now.mono;
        let answer = self.network.dial(address, now, &mut self.rng);
        let mut later = Duration::ZERO;
        match self.faults.as_mut().and_then(Faults::connect) {
            _ if self.uplink == UplinkState::Silent => return Link::Lost,
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

    /// Schedules the kernel's next attempt for a session whose first ones were lost.
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
            // `version`, `verack` and `getaddr` have about 170 bytes together.
            wire.outbound.break_after(faults.rng().usize(..180));
        }
        wire
    }

    /// Exchanges bytes between both ends of a session until neither has more to send now.
    pub(super) fn pump(&mut self, key: usize) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let was_asking = session.probe.is_asking();
        session.probe.set_ask_room(self.crawler.ask_bounds().room(self.asking));
        session.probe.handle_timeout(now);
        match session.link {
            _ if self.uplink != UplinkState::Up => {}
            Link::Failing(at, error) if at <= now.mono => {
                session.probe.handle_error(&std::io::Error::from_raw_os_error(error), now);
            }
            Link::Accepting(at, node) if at <= now.mono && !session.probe.is_done() => {
                let rng = fastrand::Rng::with_seed(self.rng.u64(..));
                let directory = Arc::clone(&self.network);
                session.link = Link::Open(peer::accept(directory, node, false, now.mono, rng));
                session.probe.handle_connected(now);
            }
            _ => {}
        }
        if self.uplink == UplinkState::Up {
            converse(session, now, &mut self.conservation);
        }
        self.asking += usize::from(session.probe.is_asking());
        self.asking -= usize::from(was_asking);
        if session.probe.is_done() {
            self.end(key);
        } else {
            self.arm(key);
        }
    }

    pub(super) fn arm(&mut self, key: usize) {
        let Some(session) = self.sessions.get(key) else { return };
        let link = match &session.link {
            _ if self.uplink != UplinkState::Up => None,
            Link::Silent | Link::Lost => None,
            Link::Failing(at, _) | Link::Accepting(at, _) => Some(*at),
            Link::Open(conversation) => {
                // The peer waits while the pipe is full.
                let has_room = session.wire.inbound.has_room();
                let peer = conversation.poll_timeout().filter(|_| has_room);
                [peer, session.wire.poll_timeout()].into_iter().flatten().min()
            }
        };
        let deadline = [session.probe.poll_timeout(), link].into_iter().flatten().min();
        self.timers.set(key, deadline);
    }

    fn end(&mut self, key: usize) {
        self.timers.set(key, None);
        let Some(mut session) = self.sessions.try_remove(key) else { return };
        if !session.probe.target().is_reference() {
            self.dialled.remove(&session.probe.target().address());
        }
        self.conservation.busy += self.now.mono - session.dialled_at;
        if let Link::Open(conversation) = &session.link {
            let seen = conversation.observations();
            self.conservation.count_far_end(seen);
            self.bans += u64::from(seen.banned);
            self.protocol_faults += seen.faults.len() as u64;
        }
        if let Some(shadow) = &mut self.shadow {
            shadow.ended();
        }
        let result = session.probe.finished();
        assert!(result.is_some() || self.is_stopped, "a probe ended without a result");
        assert!(session.probe.finished().is_none(), "a probe has two results");
        if let Some(result) = &result {
            self.conservation.count_result(result);
            self.digest(result.target.address().to_bits() ^ (result.outcome as u64) << 56);
            self.digest(result.peers.len() as u64);
        }
        self.crawler.handle_ended(result, self.now);
    }
}

/// Exchanges bytes between the two ends.
fn converse(session: &mut Session, now: Now, conservation: &mut Conservation) {
    let Session { probe, link: Link::Open(conversation), wire, .. } = session else { return };
    conversation.handle_timeout(now.mono);
    loop {
        let mut is_quiet = true;
        if let Some(bytes) = probe.poll_transmit() {
            is_quiet = false;
            conservation.bytes_out += bytes.len() as u64;
            wire.outbound.push(&bytes, now.mono);
        }
        while let Some(piece) = wire.outbound.pop(now.mono) {
            is_quiet = false;
            conversation.handle_bytes(&piece, now.mono);
        }
        while let Some(piece) = arriving(probe, wire, now) {
            is_quiet = false;
            conservation.bytes_in += piece.len() as u64;
            probe.handle_bytes(&piece, now);
        }
        // One at a time: some streams are endless.
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
        // Bytes that were sent before the close arrive before it.
        Some(_) if wire.inbound.is_empty() => probe.handle_closed(now),
        _ => {}
    }
}

/// The bytes that the probe reads next, unless it is done.
fn arriving(probe: &Probe, wire: &mut Wire, now: Now) -> Option<Vec<u8>> {
    if probe.is_done() { None } else { wire.inbound.pop(now.mono) }
}
