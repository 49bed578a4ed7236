//! `Signals`: SIGHUP, SIGTERM and SIGINT as events of the loop's poll.
//!
//! The crate signal-hook writes to a pipe in the handler, which keeps this crate free of unsafe
//! code. A signal also interrupts the poll itself, which is never restarted: the loop treats
//! `Interrupted` as an empty turn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::event::Source;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// SIGHUP for a program without an event loop: it sets a flag and does not end the process.
#[derive(Debug)]
pub struct Hangup(Arc<AtomicBool>);

impl Hangup {
    /// Installs the handler.
    ///
    /// # Errors
    /// The operating system refuses the handler.
    pub fn new() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGHUP, Arc::clone(&flag))?;
        Ok(Self(flag))
    }

    /// Whether SIGHUP was received since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// A request of the operator to a running crawl.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGHUP: reload the files.
    Reload,
    /// SIGTERM or SIGINT: write pending results and exit.
    Stop,
}

/// The signals that a crawl handles, as a mio event source.
pub struct Signals(signal_hook_mio::v1_0::Signals);

impl Signals {
    /// Installs the handlers. From here on none of the three signals ends the process by itself:
    /// call this first, so that a SIGHUP during the start does not either.
    ///
    /// SIGPIPE needs no handler: Rust's runtime ignores it, and writing to a closed pipe is an
    /// error.
    ///
    /// # Errors
    /// The operating system refuses a pipe or a handler.
    pub fn new() -> io::Result<Self> {
        signal_hook_mio::v1_0::Signals::new([SIGHUP, SIGTERM, SIGINT]).map(Self)
    }

    /// Returns the signals received since the last call, each kind at most twice.
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> + '_ {
        self.0.pending().map(|signal| if signal == SIGHUP { Signal::Reload } else { Signal::Stop })
    }
}

impl Source for Signals {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.0.register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.0.reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.deregister(registry)
    }
}
