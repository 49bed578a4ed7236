//! `Table`: a compact hash table for millions of addresses.
//!
//! Sans-I/O: plain data. 1,024 shards with linear probing, each grown by an eighth when it is 90 %
//! full: entries of 24 bytes fill 80 to 90 % of the memory, and growing copies one shard, never the
//! whole table. The hash is seeded, since peers choose the keys. All ports of an IP share a probe
//! sequence, so that a look-up can count them.
//!
//! Invariants:
//! 1. A key is present at most once.
//! 2. Every shard has a free slot, so that a look-up terminates.
//! 3. Entries are removed only by `retain`, which rebuilds a shard.

use foldhash::quality::FixedState;
use std::hash::BuildHasher;

use crate::book::{MAX_FRESH_CARRY_SECS, rank};
use crate::vocabulary::address::Address;
use crate::vocabulary::outcome::{OUTCOME_BITS, Outcome};

/// An address and its state in 24 bytes. Times are seconds since 1970; 0 means never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    ip: u32,
    port: u16,
    /// Consecutive failures of a candidate; those of a node are counted elsewhere.
    pub failures: u8,
    flags: u8,
    /// When it is due.
    pub next_probe: u32,
    /// When it was last heard of, as stored in the database.
    pub last_heard: u32,
    /// When it was last probed. Of a candidate that never was, its votes: 16 bits of the kinds of
    /// sources that named it, and the hour in which it was last seen, as they say.
    probed_or_votes: u32,
    /// Twice the pass of this process in which it last waited; one more if it was handed out. 0 if
    /// it never did, 1 if it was carried over.
    pass: u16,
    /// The /16 of the source that first named it; 0 for none. Of a confirmed candidate that was
    /// probed, the kinds of sources that claim to have seen it since.
    pub source: u16,
}

/// Number of passes after which the count of an entry starts over.
pub const MAX_EPOCH: u16 = 1 << 15;
/// In place of a pass: it was carried over from this pass or a former one.
const CARRIED: u16 = 1;

const USED: u8 = 0x80;
const NODE: u8 = 0x40;
const PROBED: u8 = 0x20;
const CONFIRMED: u8 = 0x10;
const OUTCOME: u8 = (1 << OUTCOME_BITS) - 1;

const _: () = assert!(OUTCOME & (USED | NODE | PROBED | CONFIRMED) == 0, "flags overlap");

/// The hour of a time, modulo 65,536; 0 is skipped, since it means never.
fn hour_of(seconds: u32) -> u16 {
    ((seconds / 3_600) as u16).max(1)
}

impl Entry {
    /// Creates the entry of a candidate that was never probed.
    pub fn new(address: Address) -> Self {
        let (ip, port) = (u32::from(address.ip()), address.port());
        Self { ip, port, flags: USED, ..Self::default() }
    }

    /// The key.
    pub fn address(&self) -> Address {
        Address::new(self.ip.into(), self.port)
    }

    /// Whether it has ever responded.
    pub fn is_node(&self) -> bool {
        self.flags & NODE != 0
    }

    /// Marks it as a node.
    pub fn set_node(&mut self) {
        self.flags |= NODE;
    }

    /// How its last probe ended.
    pub fn last_outcome(&self) -> Option<Outcome> {
        let code = self.flags & OUTCOME;
        self.is_probed().then(|| Outcome::from_code(code).expect("stored by set_last_outcome"))
    }

    /// Records how and when its last probe ended; its votes are void.
    pub fn set_result(&mut self, outcome: Outcome, at: u32) {
        self.flags = self.flags & !OUTCOME | PROBED | outcome as u8;
        self.probed_or_votes = at;
        if self.is_confirmed() {
            self.source = 0;
        }
    }

    /// Whether it was ever probed.
    pub fn is_probed(&self) -> bool {
        self.flags & PROBED != 0
    }

    /// Whether a pass that began at `started` probes it. An unprobed entry is always due: its
    /// `next_probe` lies in the future only if the wall clock ran ahead.
    pub fn is_due(&self, started: u32) -> bool {
        !self.is_probed() || self.next_probe <= started
    }

    /// Whether several unrelated sources or the nodes file named it.
    pub fn is_confirmed(&self) -> bool {
        self.flags & CONFIRMED != 0
    }

    /// Marks it as confirmed.
    pub fn set_confirmed(&mut self) {
        self.flags |= CONFIRMED;
        if self.is_probed() {
            self.source = 0;
        }
    }

    /// When it was last probed; 0 for never.
    pub fn last_probed(&self) -> u32 {
        if self.is_probed() { self.probed_or_votes } else { 0 }
    }

    /// Replaces the time of its last probe, if there was one.
    pub fn set_last_probed(&mut self, at: u32) {
        if self.is_probed() {
            self.probed_or_votes = at;
        }
    }

    /// Whether it waits in this pass.
    pub fn is_waiting(&self, epoch: u16) -> bool {
        self.pass == epoch << 1
    }

    /// Lets it wait in this pass.
    pub fn set_waiting(&mut self, epoch: u16) {
        self.pass = epoch << 1;
    }

    /// It neither waits nor was carried over or handed out.
    pub fn set_idle(&mut self) {
        self.pass = 0;
    }

    /// Carries it over to a later pass.
    pub fn set_carried(&mut self) {
        self.pass = CARRIED;
    }

    /// Whether it was carried over, and neither waits nor was handed out since.
    pub fn is_carried(&self) -> bool {
        self.pass == CARRIED
    }

    /// For how many seconds after it was due it may be carried over.
    pub fn max_carry(&self) -> u32 {
        let waited = self.next_probe.saturating_sub(self.last_probed());
        if self.is_probed() { waited } else { MAX_FRESH_CARRY_SECS }
    }

    /// Whether it was handed out in this pass.
    pub fn is_handed_out(&self, epoch: u16) -> bool {
        self.pass == epoch << 1 | 1
    }

    /// Records that it was handed out in this pass.
    pub fn set_handed_out(&mut self, epoch: u16) {
        self.pass = epoch << 1 | 1;
    }

    /// Counts the word of a source of this kind, from 0 to 15, that it was last seen at `seen`.
    pub fn vote(&mut self, kind: u32, seen: u32) {
        let bit = 1_u16 << (kind % 16);
        if !self.is_probed() {
            let (kinds, hour) = (self.probed_or_votes >> 16, self.probed_or_votes as u16);
            let is_later = hour == 0 || hour_of(seen).wrapping_sub(hour) as i16 > 0;
            let hour = if is_later { hour_of(seen) } else { hour };
            self.probed_or_votes = (kinds | u32::from(bit)) << 16 | u32::from(hour);
        } else if self.is_confirmed() && !self.is_node() && seen > self.probed_or_votes {
            self.source |= bit;
        }
    }

    /// Its cell in the order of candidates, in a pass that began at `started`.
    pub fn cell(&self, started: u32) -> usize {
        if self.address().has_avoided_port() {
            return rank::AVOIDED_CELL;
        }
        let confirmed = u32::from(self.is_confirmed());
        if let Some(outcome) = self.last_outcome() {
            let sightings = if self.is_confirmed() { self.source.count_ones() } else { 0 };
            let was_silent = outcome == Outcome::ConnectTimeout;
            return rank::failed_cell(sightings, self.failures, was_silent);
        }
        // The votes of a former process are lost, except that there were at least two.
        let votes = (self.probed_or_votes >> 16).count_ones().max(1 + confirmed);
        let hour = self.probed_or_votes as u16;
        let age = i32::from(hour_of(started).wrapping_sub(hour) as i16);
        rank::fresh_cell(votes, if hour == 0 { i32::MAX } else { age })
    }

    fn is_used(&self) -> bool {
        self.flags & USED != 0
    }
}

/// A sharded hash table of [`Entry`]s.
#[derive(Debug)]
pub struct Table {
    hasher: FixedState,
    shards: Vec<Shard>,
    len: usize,
}

#[derive(Debug, Default)]
struct Shard {
    slots: Box<[Entry]>,
    used: usize,
}

/// Number of shards, the chunks in which the table is walked.
pub const SHARDS: usize = 1_024;
const MIN_SLOTS: usize = 8;

impl Table {
    /// Creates an empty table with a hash seeded by `seed`.
    pub fn new(seed: u64) -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { hasher: FixedState::with_seed(seed), shards, len: 0 }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory of its slots.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| size_of_val(&*shard.slots)).sum()
    }

    /// The entry of `address`, for modification.
    pub fn get_mut(&mut self, address: Address) -> Option<&mut Entry> {
        let hash = self.hash(address);
        self.shards.get_mut(shard_of(hash))?.find(address, hash)
    }

    /// The entry of `address`.
    pub fn get(&self, address: Address) -> Option<&Entry> {
        let hash = self.hash(address);
        let shard = self.shards.get(shard_of(hash))?;
        shard.slots.get(shard.position(address, hash)?).filter(|entry| entry.is_used())
    }

    /// Adds an entry; returns `false` and changes nothing if its address is present already.
    pub fn insert(&mut self, entry: Entry) -> bool {
        let address = entry.address();
        let hash = self.hash(address);
        let hasher = &self.hasher;
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else { return false };
        if shard.find(address, hash).is_some() {
            return false;
        }
        if shard.used * 10 >= shard.slots.len() * 9 {
            shard.rebuild(shard.slots.len() + shard.slots.len().div_ceil(8), hasher, |_| true);
        }
        shard.place(entry, hash);
        self.len += 1;
        true
    }

    /// Reads the slot where a look-up of `address` begins. The cache misses of many such reads
    /// overlap; those of look-ups do not.
    pub fn touch(&self, address: Address) -> u32 {
        let hash = self.hash(address);
        let slots = self.shards.get(shard_of(hash)).map(|shard| &shard.slots[..]);
        let slots = slots.unwrap_or_default();
        slots.get(start_of(hash, slots.len())).map_or(0, |entry| entry.ip)
    }

    /// The addresses with this IP, on any port.
    pub fn same_ip(&self, address: Address) -> impl Iterator<Item = Address> {
        let hash = self.hash(address);
        let ip = u32::from(address.ip());
        let slots = self.shards.get(shard_of(hash)).into_iter().flat_map(move |s| s.walk(hash));
        let used = slots.map(|(_, entry)| entry).take_while(|entry| entry.is_used());
        used.filter(move |entry| entry.ip == ip).map(Entry::address)
    }

    /// Keeps only the entries for which `keep` returns `true`, and frees memory.
    pub fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let hasher = &self.hasher;
        for shard in &mut self.shards {
            let kept = shard.slots.iter().filter(|e| e.is_used() && keep(e)).count();
            if kept < shard.used {
                shard.rebuild(kept + kept.div_ceil(5), hasher, &keep);
            }
        }
        self.len = self.shards.iter().map(|shard| shard.used).sum();
    }

    /// The entries of one shard, in hash order.
    pub fn shard_mut(&mut self, index: usize) -> impl Iterator<Item = &mut Entry> {
        let slots = self.shards.get_mut(index).map(|shard| &mut shard.slots[..]);
        slots.unwrap_or_default().iter_mut().filter(|entry| entry.is_used())
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.shards.iter().flat_map(|shard| shard.slots.iter()).filter(|entry| entry.is_used())
    }

    /// All entries, for modification.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let slots = self.shards.iter_mut().flat_map(|shard| shard.slots.iter_mut());
        slots.filter(|entry| entry.is_used())
    }

    fn hash(&self, address: Address) -> u64 {
        hash_of(&self.hasher, address)
    }
}

impl Shard {
    fn find(&mut self, address: Address, hash: u64) -> Option<&mut Entry> {
        let position = self.position(address, hash)?;
        self.slots.get_mut(position).filter(|entry| entry.is_used())
    }

    /// The slots in probe order.
    fn walk(&self, hash: u64) -> impl Iterator<Item = (usize, &Entry)> {
        let start = start_of(hash, self.slots.len());
        let (before, behind) = self.slots.split_at_checked(start).unwrap_or_default();
        let behind = behind.iter().enumerate().map(move |(offset, entry)| (start + offset, entry));
        behind.chain(before.iter().enumerate())
    }

    /// The slot of `address`, or the free slot where it would be inserted.
    fn position(&self, address: Address, hash: u64) -> Option<usize> {
        let (ip, port) = (u32::from(address.ip()), address.port());
        let stop = |e: &Entry| !e.is_used() || (e.ip == ip && e.port == port);
        self.walk(hash).find(|(_, entry)| stop(entry)).map(|(position, _)| position)
    }

    fn place(&mut self, entry: Entry, hash: u64) {
        let position = self.position(entry.address(), hash).expect("2. a shard has a free slot");
        self.slots[position] = entry;
        self.used += 1;
    }

    fn rebuild(&mut self, slots: usize, hasher: &FixedState, keep: impl Fn(&Entry) -> bool) {
        let fresh = vec![Entry::default(); slots.max(MIN_SLOTS)].into_boxed_slice();
        let old = std::mem::replace(&mut self.slots, fresh);
        self.used = 0;
        for entry in old.iter().filter(|entry| entry.is_used() && keep(entry)) {
            self.place(*entry, hash_of(hasher, entry.address()));
        }
    }
}

/// Hashes the IP alone, so that its ports are neighbours.
fn hash_of(hasher: &FixedState, address: Address) -> u64 {
    hasher.hash_one(u32::from(address.ip()))
}

/// The upper 10 bits select the shard.
fn shard_of(hash: u64) -> usize {
    (hash >> 54) as usize
}

/// The next 32 bits select the first slot, scaled to any number of slots.
fn start_of(hash: u64, slots: usize) -> usize {
    ((u64::from((hash >> 22) as u32) * slots as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> Address {
        Address::new(Ipv4Addr::from(number / 3), (number % 3) as u16)
    }

    #[test]
    fn ports_are_counted_and_retain_frees_memory() {
        let mut table = Table::new(3);
        for number in 0..30_000 {
            table.insert(Entry::new(address(number)));
        }
        assert!((0..10_000).all(|ip| table.same_ip(address(ip * 3)).count() == 3));
        assert_eq!(table.same_ip(address(90_000)).count(), 0);
        let before = table.bytes();
        table.retain(|entry| entry.address().port() == 1);
        assert_eq!((table.len(), table.iter().count()), (10_000, 10_000));
        assert!(table.bytes() < before / 2);
        assert!((0..10_000).all(|ip| table.get(address(ip * 3 + 1)).is_some()));
        assert!((0..10_000).all(|ip| table.get(address(ip * 3)).is_none()));
        assert!(table.insert(Entry::new(address(0))));
    }

    #[test]
    fn table_agrees_with_a_map() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut table, mut model) = (Table::new(11), HashMap::new());
        for step in 0..200_000_u32 {
            let address = address(rng.u32(..120_000));
            let mut entry = Entry::new(address);
            entry.next_probe = step;
            assert_eq!(table.insert(entry), !model.contains_key(&address));
            model.entry(address).or_insert(step);
        }
        assert_eq!(table.len(), model.len());
        assert_eq!(table.iter().count(), model.len());
        for (address, next_probe) in &model {
            assert_eq!(table.get(*address).map(|entry| entry.next_probe), Some(*next_probe));
        }
        let walked: usize = (0..SHARDS).map(|shard| table.shard_mut(shard).count()).sum();
        assert_eq!(walked, model.len());
        assert!(table.get(address(500_000)).is_none());
    }

    #[test]
    fn an_address_takes_at_most_32_bytes_at_every_size() {
        assert_eq!(size_of::<Entry>(), 24);
        let mut table = Table::new(1);
        for number in 0..1_500_000 {
            table.insert(Entry::new(address(number)));
            if number > 100_000 && number % 10_000 == 0 {
                // Includes the copy of one shard while it grows.
                let bytes = table.bytes() + table.bytes() / SHARDS * 2;
                let each = bytes as f64 / table.len() as f64;
                assert!(each <= 32.0, "{each} bytes at {number}");
            }
        }
    }

    #[test]
    fn flags_are_independent() {
        let mut entry = Entry::new(address(9));
        assert_eq!(entry.last_outcome(), None);
        for outcome in Outcome::ALL {
            entry.set_result(outcome, 7);
            assert_eq!((entry.last_outcome(), entry.is_node()), (Some(outcome), false));
        }
        entry.set_node();
        assert!(entry.is_node() && entry.is_used());
        assert_eq!(entry.last_outcome(), Outcome::ALL.last().copied());
        assert_eq!(entry.address(), address(9));
    }
}
