//! Any bytes as a list of nodes: every entry is handed over or counted, every complaint is short,
//! and the addresses round-trip as a plain list.
//!
//! Input: the list.

use bitdash::snapshot::{Fault, LeftOut, read};

pub fn run(bytes: &[u8]) {
    let mut addresses = Vec::new();
    let summary = read(bytes, 8333, &mut |entry| {
        assert_ne!(entry.address.port(), 0);
        addresses.push(entry.address);
    });
    let check = |fault: &Fault| {
        assert!(fault.line >= 1 && (1..50_000).contains(&fault.reason.len()), "{fault}");
    };
    match &summary {
        Ok(summary) => {
            let LeftOut { ipv6, onion, i2p, names, port_zero, unreadable } = summary.left_out;
            let left_out = ipv6 + onion + i2p + names + port_zero + unreadable;
            assert_eq!(summary.entries, addresses.len() as u64 + left_out);
            assert_eq!(summary.faults.len() as u64, unreadable.min(5));
            summary.faults.iter().for_each(check);
        }
        Err(fault) => check(fault),
    }
    if addresses.is_empty() {
        return;
    }
    let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
    let mut again = Vec::new();
    let summary = read(text.as_bytes(), 1, &mut |entry| again.push(entry.address));
    assert_eq!((summary.map(|summary| summary.faults), again), (Ok(vec![]), addresses));
}
