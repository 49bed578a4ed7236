//! What a simulated network serves, and what it saw of the crawler, as tab-separated files.
//!
//! Layer 2: pure; it writes into whatever `Write` it is given.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::lookup::species::species;
use crate::simnet::behaviour::{Fault, Observations};
use crate::simnet::manner::Manner;
use crate::simnet::world::{DeadKind, World};
use crate::watchglass::text;

/// The network's own account of the crawler.
#[derive(Clone, Debug)]
pub struct Report {
    /// Connections to each node, by its place in [`World::nodes`].
    pub connections: Vec<u64>,
    /// Connections to each den of the zoo, by its place in [`World::dens`].
    pub den_connections: Vec<u64>,
    /// The place of the first den, as conversations count them.
    first_den: usize,
    /// Connections to nodes that are open now.
    pub open: u64,
    /// The most that were open at the same time.
    pub most_at_once: u64,
    /// Nodes that banned somebody, each with everyone whom it banned.
    pub bans: u64,
    /// Connections that a node closed at once because of an earlier ban.
    pub turned_away: u64,
    /// Connections to an address that has no node.
    pub stray: u64,
    /// Connections that did not come from loopback.
    pub foreign: u64,
    /// Connections that could not be taken for want of file descriptors, so that the crawler waited.
    pub out_of_files: u64,
    asked: BTreeMap<Manner, Asked>,
    commands: BTreeMap<String, u64>,
    faults: BTreeMap<Fault, u64>,
}

/// How nodes of one manner were asked for peers.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Nodes that send peers were asked so often.
    pub asked: u64,
    /// Their replies that went out to the end.
    pub whole_replies: u64,
    /// Nodes that have no peers were asked so often.
    pub in_vain: u64,
}

impl Report {
    /// Nothing seen yet.
    pub fn new(world: &World) -> Self {
        Self {
            connections: vec![0; world.nodes().len()],
            den_connections: vec![0; world.dens().len()],
            first_den: world.nodes().len() + world.dead().len(),
            open: 0,
            most_at_once: 0,
            bans: 0,
            turned_away: 0,
            stray: 0,
            foreign: 0,
            out_of_files: 0,
            asked: BTreeMap::new(),
            commands: BTreeMap::new(),
            faults: BTreeMap::new(),
        }
    }

    /// A connection was made to the node or beast at this place.
    pub fn connected(&mut self, place: usize) {
        let count = match place.checked_sub(self.first_den) {
            Some(den) => self.den_connections.get_mut(den),
            None => self.connections.get_mut(place),
        };
        if let Some(connections) = count {
            *connections += 1;
        }
    }

    /// One more counts as open.
    pub fn opened(&mut self) {
        self.open += 1;
        self.most_at_once = self.most_at_once.max(self.open);
    }

    /// One that counted as open is no more.
    pub fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// A connection to a node ended, with so many whole replies; or one to a beast, which counts for what the
    /// other side said alone.
    pub fn ended(&mut self, world: &World, node: usize, seen: &Observations, whole_replies: u64) {
        for (command, times) in &seen.commands {
            let name = command.to_string();
            if self.commands.len() < MOST_COMMANDS || self.commands.contains_key(&name) {
                *self.commands.entry(name).or_default() += times;
            }
        }
        for fault in &seen.faults {
            *self.faults.entry(*fault).or_default() += 1;
        }
        let Some(node) = world.nodes().get(node) else { return };
        let asked = self.asked.entry(node.manner).or_default();
        if node.sends_peers {
            asked.asked += seen.asked;
            asked.whole_replies += whole_replies;
        } else {
            asked.in_vain += seen.asked;
        }
    }

    /// How nodes of a manner were asked.
    pub fn asked(&self, manner: Manner) -> Asked {
        self.asked.get(&manner).copied().unwrap_or_default()
    }

    /// How often a command was received.
    pub fn received(&self, command: &str) -> u64 {
        self.commands.get(command).copied().unwrap_or_default()
    }

    /// All faults.
    pub fn protocol_faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Writes `report.tsv`: a key and a value in each line.
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
                self.connections.iter().chain(&self.den_connections).copied().max().unwrap_or(0),
            ),
            ("zoo_connections", self.den_connections.iter().sum()),
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
        for manner in Manner::ALL {
            let Asked { asked, whole_replies, in_vain } = self.asked(manner);
            writeln!(out, "asked.{manner}\t{asked}")?;
            writeln!(out, "whole_replies.{manner}\t{whole_replies}")?;
            writeln!(out, "asked_in_vain.{manner}\t{in_vain}")?;
        }
        for (command, times) in &self.commands {
            writeln!(out, "command.{command}\t{times}")?;
        }
        for (fault, times) in &self.faults {
            writeln!(out, "fault.{}\t{times}", fault.name())?;
        }
        Ok(())
    }

    /// Writes `connections.tsv`: every node and den with the number of connections to it.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_connections(&self, world: &World, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "host\tport\tconnections")?;
        let nodes = world.nodes().iter().map(|node| node.address).zip(&self.connections);
        let dens = world.dens().iter().map(|den| den.address).zip(&self.den_connections);
        for (address, connections) in nodes.chain(dens) {
            writeln!(out, "{}\t{}\t{connections}", address.ip(), address.port())?;
        }
        Ok(())
    }
}

/// Writes `nodes.tsv`: every node, with what it should be recorded as.
///
/// # Errors
///
/// Those of `out`.
pub fn write_nodes(world: &World, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "host\tport\tprotocol_version\tuser_agent\tservices\tstart_height\trelay\tspecies\tmanner\tpeers"
    )?;
    for (at, node) in world.nodes().iter().enumerate() {
        let agent = text::from_bytes(&node.user_agent);
        let relay = node.relay.map_or("", |relay| if relay { "t" } else { "f" });
        writeln!(
            out,
            "{}\t{}\t{}\t{agent}\t{}\t{}\t{relay}\t{}\t{}\t{}",
            node.address.ip(),
            node.address.port(),
            node.protocol_version,
            node.services as i64,
            node.start_height,
            species(Some(&agent), node.protocol_version, node.services),
            node.manner,
            world.reply_length(at),
        )?;
    }
    Ok(())
}

/// Writes `dead.tsv`: every address without a node, and how it is dead.
///
/// # Errors
///
/// Those of `out`.
pub fn write_dead(world: &World, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "host\tport\tkind")?;
    for dead in world.dead() {
        writeln!(out, "{}\t{}\t{}", dead.address.ip(), dead.address.port(), dead.kind.name())?;
    }
    Ok(())
}

/// Writes `zoo.tsv`: every den of the zoo, with what must be recorded of it. `\N` is null: no field can be
/// that, since text has its backslashes doubled. `recorded`: of the addresses of this host at most so many.
///
/// # Errors
///
/// Those of `out`.
pub fn write_zoo(world: &World, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "host\tport\tbeast\toutcome\tprotocol_version\tuser_agent\tservices\tstart_height\trelay\tspecies\t\
         recorded\tstatement"
    )?;
    for den in world.dens() {
        let Some(beast) = world.beasts().get(den.beast) else { continue };
        let null = || "\\N".to_owned();
        let fields = match beast.said() {
            None => [null(), null(), null(), null(), null(), null()],
            Some(said) => [
                said.protocol_version.to_string(),
                said.text().unwrap_or_else(null),
                (said.services as i64).to_string(),
                said.start_height.map_or_else(null, |height| height.to_string()),
                said.relay.map_or_else(null, |relay| if relay { "t" } else { "f" }.to_owned()),
                said.species().to_owned(),
            ],
        };
        writeln!(
            out,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}",
            den.address.ip(),
            den.address.port(),
            beast.name,
            beast.outcome(),
            fields.join("\t"),
            beast.recorded,
            beast.statement(),
        )?;
    }
    Ok(())
}

/// Writes `seeds.txt`: the nodes to start from, in the layout of a nodes file.
///
/// # Errors
///
/// Those of `out`.
pub fn write_seeds(world: &World, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "# The seeds of a simulated network: HOST PORT NAME; unknown is no name.")?;
    let mut named = 0;
    for node in world.seeds().iter().filter_map(|at| world.nodes().get(*at)) {
        let (ip, port) = (node.address.ip(), node.address.port());
        if node.manner == Manner::Trb {
            named += 1;
            writeln!(out, "{ip} {port} simulated-trb-{named}")?;
        } else {
            writeln!(out, "{ip} {port} unknown")?;
        }
    }
    Ok(())
}

/// How many addresses of a world are dead in a way.
pub fn count_dead(world: &World, kind: DeadKind) -> usize {
    world.dead().iter().filter(|dead| dead.kind == kind).count()
}

const MOST_COMMANDS: usize = 100;
