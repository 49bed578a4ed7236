//! Signals, in a separate process: raising them would disturb other tests.

use std::io;
use std::time::Duration;

use bitdash::sys::signal::{Signal, Signals};
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Polls until signals arrive, for at most ten seconds.
fn wait_for(poll: &mut Poll, signals: &mut Signals) -> Vec<Signal> {
    let mut events = Events::with_capacity(4);
    for _ in 0..100 {
        match poll.poll(&mut events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.unwrap(),
        }
        if events.iter().any(|event| event.token() == Token(7)) {
            let got: Vec<Signal> = signals.pending().collect();
            if !got.is_empty() {
                return got;
            }
        }
    }
    Vec::new()
}

#[test]
fn signals_arrive_as_poll_events() {
    let mut signals = Signals::new().unwrap();
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut signals, Token(7), Interest::READABLE).unwrap();
    let table = [(SIGHUP, Signal::Reload), (SIGTERM, Signal::Stop), (SIGINT, Signal::Stop)];
    for (raised, expected) in table {
        signal_hook::low_level::raise(raised).unwrap();
        assert_eq!(wait_for(&mut poll, &mut signals), [expected]);
    }
}
