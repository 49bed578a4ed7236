//! Memory and time per address of the address book at several sizes: `cargo bench --bench book`.
//!
//! Measures the real recorder with results of dead probes and with replies of 1,000 known peers,
//! the common case of a pass. The ratios compare with the smallest book of the same run: absolute
//! times are noise.

#![allow(clippy::disallowed_methods)] // a benchmark reads the clock

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitdash::config::Config;
use bitdash::sys::process::resident_bytes;
use bitdash_core::book::BookParams;
use bitdash_core::book::rank::RankingParams;
use bitdash_core::lookup::species::Rules;
use bitdash_core::record::messages::{Names, ToWriter};
use bitdash_core::record::recorder::{Recorder, RecorderParams};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{Known, LastPass};
use bitdash_core::vocabulary::target::{Peer, ProbeResult, Target, VersionInfo};
use bitdash_core::vocabulary::time::{Now, UnixTime};

const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const NOW: Now = Now { mono: Duration::ZERO, wall: START };

fn address(number: u32) -> Address {
    // Spread over the address space, so that neighbours share neither /16s nor cache lines.
    Address::new(Ipv4Addr::from(number.wrapping_mul(2_654_435_761)), 8333)
}

fn recorder(size: u32) -> Recorder {
    let config = Config::default();
    let params = RecorderParams {
        book: BookParams {
            backoff: config.backoff,
            getaddr_interval: config.crawl.getaddr_interval,
            max_addresses: 10_000_000,
            ranking: RankingParams::default(),
        },
        filter: Arc::new(Filter::new(&[], &["0.0.0.0/0".parse().expect("a net")])),
        rules: Rules::builtin(),
    };
    let mut recorder = Recorder::new(&params, 1);
    for number in 0..size {
        recorder.load(&Known {
            address: address(number),
            last_heard: START,
            failures: 1,
            last_probed: Some(START),
            last_outcome: Some(Outcome::ConnectTimeout),
            next_probe: START.plus(Duration::from_secs(3_600)),
            source: 0,
            node: None,
        });
    }
    recorder.handle_loaded(LastPass::default());
    recorder.handle(ToWriter::StartPass { at: START, names: Names::default() }, NOW);
    while recorder.poll_output().is_some() {}
    recorder.take_batch();
    recorder
}

fn dead(number: u32) -> ProbeResult {
    ProbeResult {
        target: Target::candidate(address(number)),
        outcome: Outcome::ConnectTimeout,
        probed_at: START,
        dialled_at: Duration::ZERO,
        heard_at: None,
        connect_ms: None,
        version_ms: None,
        version: None,
        peers_sent: None,
        peers: Vec::new(),
    }
}

fn reply(rng: &mut fastrand::Rng, size: u32) -> ProbeResult {
    let peer = |_| Peer { address: address(rng.u32(..size)), services: 1, time: 1_799_990_000 };
    ProbeResult {
        outcome: Outcome::Responded,
        version: Some(VersionInfo::default()),
        peers_sent: Some(1_000),
        peers: (0..1_000).map(peer).collect(),
        ..dead(7)
    }
}

/// Nanoseconds per result, rows for the database included; the median of five rounds.
fn cost(recorder: &mut Recorder, mut result: impl FnMut() -> ProbeResult, results: usize) -> f64 {
    let mut rounds: Vec<f64> = (0..5)
        .map(|_| {
            let messages: Vec<ToWriter> =
                (0..results).map(|_| ToWriter::Finished(Box::new(result()))).collect();
            let begin = Instant::now();
            for message in messages {
                recorder.handle(message, NOW);
                while recorder.poll_output().is_some() {}
            }
            let elapsed = begin.elapsed().as_nanos() as f64;
            recorder.take_batch();
            elapsed / results as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[2]
}

fn main() {
    let sizes: &[u32] = if std::env::args().any(|arg| arg == "--smoke") {
        &[10_000, 20_000]
    } else {
        &[10_000, 100_000, 1_000_000, 5_000_000]
    };
    println!(
        "{:>10} {:>10} {:>12} {:>8} {:>12} {:>8}",
        "addresses", "rss_mb", "dead_ns", "ratio", "reply_ns", "ratio"
    );
    let mut first = None;
    for &size in sizes {
        let mut recorder = recorder(size);
        let rss = resident_bytes().unwrap_or(0) as f64 / 1_048_576.0;
        let mut rng = fastrand::Rng::with_seed(9);
        // A batch of the default size at a time, like the writer.
        let dead = cost(&mut recorder, || dead(rng.u32(..size)), 5_000);
        let mut rng = fastrand::Rng::with_seed(10);
        let reply = cost(&mut recorder, || reply(&mut rng, size), 300);
        let (dead_0, reply_0) = *first.get_or_insert((dead, reply));
        println!(
            "{size:>10} {rss:>10.1} {dead:>12.0} {:>8.2} {reply:>12.0} {:>8.2}",
            dead / dead_0,
            reply / reply_0
        );
    }
}
