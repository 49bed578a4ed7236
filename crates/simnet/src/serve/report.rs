//! `Report`: what the simulated network saw of the crawler, and the files for that.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::network::world::World;
use crate::node::conversation::{Fault, Observations};
use crate::node::profile::Profile;

/// What the network saw of the crawler.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Connections to each node, by its index in [`World::nodes`].
    pub connections: Vec<u64>,
    /// Connections to each placement, by its index in [`World::placements`].
    pub placement_connections: Vec<u64>,
    /// The place of the first placement.
    first_placement: usize,
    /// Open connections.
    pub open: u64,
    /// Maximum number of open connections.
    pub most_at_once: u64,
    /// Bans, each of one address by one node.
    pub bans: u64,
    /// Connections that were closed at once because of an earlier ban.
    pub turned_away: u64,
    /// Connections to addresses that do not exist in the network.
    pub stray: u64,
    /// Connections from outside loopback.
    pub foreign: u64,
    /// Number of times that accepting failed for lack of file descriptors.
    pub out_of_files: u64,
    asked: BTreeMap<Profile, Asked>,
    commands: BTreeMap<String, u64>,
    faults: BTreeMap<Fault, u64>,
}

/// The `getaddr` messages to nodes of one profile.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Asked {
    /// To nodes that send peers.
    pub asked: u64,
    /// Replies that were sent completely.
    pub whole_replies: u64,
    /// To nodes that send no peers.
    pub in_vain: u64,
}

impl Report {
    /// An empty report.
    pub fn new(world: &World) -> Self {
        Self {
            connections: vec![0; world.nodes().len()],
            placement_connections: vec![0; world.placements().len()],
            first_placement: world.nodes().len() + world.dead().len(),
            ..Self::default()
        }
    }

    /// Counts a connection to the peer at this place.
    pub fn connected(&mut self, place: usize) {
        let count = match place.checked_sub(self.first_placement) {
            Some(placement) => self.placement_connections.get_mut(placement),
            None => self.connections.get_mut(place),
        };
        if let Some(connections) = count {
            *connections += 1;
        }
    }

    /// Counts a connection as open.
    pub fn opened(&mut self) {
        self.open += 1;
        self.most_at_once = self.most_at_once.max(self.open);
    }

    /// Counts the end of a connection that counted as open.
    pub fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Counts what a peer saw on a connection that ended, and the replies that were sent
    /// completely.
    pub fn ended(&mut self, world: &World, node: usize, seen: &Observations, whole_replies: u64) {
        for (command, times) in &seen.commands {
            let name = command.to_string();
            if self.commands.len() < MAX_COMMANDS || self.commands.contains_key(&name) {
                *self.commands.entry(name).or_default() += times;
            }
        }
        for fault in &seen.faults {
            *self.faults.entry(*fault).or_default() += 1;
        }
        let Some(node) = world.nodes().get(node) else { return };
        let asked = self.asked.entry(node.profile).or_default();
        if node.sends_peers {
            asked.asked += seen.asked;
            asked.whole_replies += whole_replies;
        } else {
            asked.in_vain += seen.asked;
        }
    }

    /// The `getaddr` messages to nodes of this profile.
    pub fn asked(&self, profile: Profile) -> Asked {
        self.asked.get(&profile).copied().unwrap_or_default()
    }

    /// Number of received messages with this command.
    pub fn received(&self, command: &str) -> u64 {
        self.commands.get(command).copied().unwrap_or_default()
    }

    /// Number of protocol faults.
    pub fn protocol_faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Writes `report.tsv`: a key and a value per line.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let all = |count: fn(&Asked) -> u64| self.asked.values().map(count).sum::<u64>();
        let lines = [
            ("connections_total", self.connections.iter().sum()),
            (
                "distinct_addresses",
                self.connections.iter().filter(|times| **times > 0).count() as u64,
            ),
            (
                "most_connections_per_address",
                self.connections
                    .iter()
                    .chain(&self.placement_connections)
                    .copied()
                    .max()
                    .unwrap_or(0),
            ),
            ("zoo_connections", self.placement_connections.iter().sum()),
            ("most_at_once", self.most_at_once),
            ("asked", all(|asked| asked.asked)),
            ("whole_replies", all(|asked| asked.whole_replies)),
            ("asked_in_vain", all(|asked| asked.in_vain)),
            ("protocol_faults", self.protocol_faults()),
            ("bans", self.bans),
            ("turned_away", self.turned_away),
            ("stray", self.stray),
            ("foreign", self.foreign),
            ("out_of_files", self.out_of_files),
        ];
        for (key, value) in lines {
            writeln!(out, "{key}\t{value}")?;
        }
        for profile in Profile::ALL {
            let Asked { asked, whole_replies, in_vain } = self.asked(profile);
            writeln!(out, "asked.{profile}\t{asked}")?;
            writeln!(out, "whole_replies.{profile}\t{whole_replies}")?;
            writeln!(out, "asked_in_vain.{profile}\t{in_vain}")?;
        }
        for (command, times) in &self.commands {
            writeln!(out, "command.{command}\t{times}")?;
        }
        for (fault, times) in &self.faults {
            writeln!(out, "fault.{}\t{times}", fault.name())?;
        }
        Ok(())
    }

    /// Writes `connections.tsv`: every node and placement with its number of connections.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_connections(&self, world: &World, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "host\tport\tconnections")?;
        let nodes = world.nodes().iter().map(|node| node.address).zip(&self.connections);
        let placements = world
            .placements()
            .iter()
            .map(|placement| placement.address)
            .zip(&self.placement_connections);
        for (address, connections) in nodes.chain(placements) {
            writeln!(out, "{}\t{}\t{connections}", address.ip(), address.port())?;
        }
        Ok(())
    }
}

/// Writes `seeds.txt`: the seeds as a nodes file.
///
/// # Errors
///
/// Those of `out`.
pub fn write_seeds(world: &World, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "# Seeds of a simulated network: HOST PORT NAME; \"unknown\" is not a name.")?;
    let mut named = 0;
    for node in world.seeds().iter().filter_map(|at| world.nodes().get(*at)) {
        let (ip, port) = (node.address.ip(), node.address.port());
        if node.profile == Profile::Trb {
            named += 1;
            writeln!(out, "{ip} {port} simulated-trb-{named}")?;
        } else {
            writeln!(out, "{ip} {port} unknown")?;
        }
    }
    Ok(())
}

const MAX_COMMANDS: usize = 100;
