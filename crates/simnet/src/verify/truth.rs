//! `Truth`: what the crawler must record of each address of a network; the file `truth.tsv`.
//!
//! Invariant: 1. [`read()`] returns the rows that [`write()`] was given.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use crate::network::world::World;
use crate::zoo::Claimed;
use bitdash_core::lookup::species::Rules;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::Seen;

/// Name of the file in the directory that `serve` writes.
pub const FILE: &str = "truth.tsv";
const HEADER: &str = "host\tport\tkind\tlabel\toutcome\tprotocol_version\tuser_agent\tservices\tstart_height\trelay\
                      \tspecies\trelease\tpeers\tmax_recorded\tstatement";
/// Stands for a field that was not sent. No text equals it, since text has its backslashes doubled.
const NULL: &str = "\\N";

/// What stands behind an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A node.
    Node,
    /// A peer that misbehaves.
    Zoo,
    /// Nothing: it is silent or refuses.
    Dead,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Zoo => "zoo",
            Self::Dead => "dead",
        }
    }
}

/// What the crawler must record of one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The address.
    pub address: Address,
    /// What stands behind it.
    pub kind: Kind,
    /// The profile of a node, the name of a misbehaviour, `silent` or `refusing`.
    pub label: String,
    /// How a probe ends.
    pub outcome: Outcome,
    /// The fields of its `version`, if it responds.
    pub fields: Option<NodeFields>,
    /// Number of entries in each of its replies to `getaddr`.
    pub peers: usize,
    /// Maximum number of addresses of this host that the crawler records.
    pub max_recorded: usize,
    /// What it does and how it must be recorded, in one sentence.
    pub statement: String,
}

/// The fields of a `version` as they must be recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeFields {
    /// Column `protocol_version`.
    pub protocol_version: i32,
    /// Column `user_agent`.
    pub user_agent: Option<String>,
    /// Column `services`, with the bits of the unsigned number.
    pub services: i64,
    /// Column `start_height`.
    pub start_height: Option<i32>,
    /// Column `relay`.
    pub relay: Option<bool>,
    /// Column `species`.
    pub species: String,
    /// Column `release`.
    pub release: Option<String>,
}

impl NodeFields {
    pub(crate) fn of_claimed(claimed: &Claimed) -> Self {
        let (user_agent, services) = (claimed.text(), claimed.services);
        let agent = user_agent.as_deref();
        let lineage = Rules::builtin().classify(agent, claimed.protocol_version, services);
        Self {
            release: lineage.release,
            species: lineage.species.to_string(),
            protocol_version: claimed.protocol_version,
            user_agent,
            services: services as i64,
            start_height: claimed.start_height,
            relay: claimed.relay,
        }
    }

    pub(crate) fn of_seen(seen: &Seen) -> Self {
        let (version, lineage) = (seen.version.clone(), seen.lineage.clone());
        Self {
            release: lineage.release,
            protocol_version: version.protocol_version,
            user_agent: version.user_agent,
            services: version.services as i64,
            start_height: version.start_height,
            relay: version.relay,
            species: lineage.species.to_string(),
        }
    }

    /// The columns of `truth.tsv`, with `\N` for what was not sent.
    fn columns(fields: Option<&Self>) -> [String; 7] {
        let number = |value: Option<i64>| value.map(|number| number.to_string());
        let relay = |relay: bool| if relay { "t" } else { "f" }.to_owned();
        [
            fields.map(|fields| fields.protocol_version.to_string()),
            fields.and_then(|fields| fields.user_agent.clone()),
            fields.map(|fields| fields.services.to_string()),
            number(fields.and_then(|fields| fields.start_height).map(i64::from)),
            fields.and_then(|fields| fields.relay).map(relay),
            fields.map(|fields| fields.species.clone()),
            fields.and_then(|fields| fields.release.clone()),
        ]
        .map(|column| column.unwrap_or_else(|| NULL.to_owned()))
    }

    fn parse(
        [version, agent, services, height, relay, species, release]: [&str; 7],
    ) -> Option<Self> {
        Some(Self {
            protocol_version: version.parse().ok()?,
            user_agent: nullable(agent)?,
            services: services.parse().ok()?,
            start_height: nullable(height)?,
            relay: match relay {
                "t" => Some(true),
                "f" => Some(false),
                NULL => None,
                _ => return None,
            },
            species: species.to_owned(),
            release: nullable(release)?,
        })
    }
}

impl fmt::Display for NodeFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_not_sent = |value: Option<String>| value.unwrap_or("not sent".to_owned());
        let agent = self.user_agent.as_deref().map(|agent| match agent.get(..57) {
            Some(start) if agent.len() > 60 => format!("\"{start}...\""),
            _ => format!("\"{agent}\""),
        });
        let relay = self.relay.map(|relay| if relay { "yes" } else { "no" }.to_owned());
        write!(
            f,
            "protocol version {}, user agent {}, services {}, height {}, relay {}",
            self.protocol_version,
            or_not_sent(agent),
            self.services,
            or_not_sent(self.start_height.map(|height| height.to_string())),
            or_not_sent(relay),
        )
    }
}

/// What must be recorded of `world`: its nodes, the zoo, the dead addresses.
pub fn of_world(world: &World) -> Vec<Row> {
    let nodes = world.nodes().iter().enumerate().map(|(at, node)| Row {
        address: node.address,
        kind: Kind::Node,
        label: node.profile.name().to_owned(),
        outcome: Outcome::Responded,
        fields: Some(NodeFields::of_claimed(&node.claimed())),
        peers: world.reply_length(at),
        max_recorded: 1,
        statement: String::new(),
    });
    let zoo = world.placements().iter().map(|placement| {
        let misbehaviour = &world.misbehaviours()[placement.misbehaviour];
        Row {
            address: placement.address,
            kind: Kind::Zoo,
            label: misbehaviour.name.to_owned(),
            outcome: misbehaviour.outcome(),
            fields: misbehaviour.claimed().map(NodeFields::of_claimed),
            peers: 0,
            max_recorded: misbehaviour.max_recorded,
            statement: misbehaviour.statement(),
        }
    });
    let dead = world.dead().iter().map(|dead| Row {
        address: dead.address,
        kind: Kind::Dead,
        label: dead.kind.name().to_owned(),
        outcome: dead.kind.outcome(),
        fields: None,
        peers: 0,
        max_recorded: 1,
        statement: String::new(),
    });
    nodes.chain(zoo).chain(dead).collect()
}

/// Writes `truth.tsv`.
///
/// # Errors
///
/// Those of `out`.
pub fn write(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{HEADER}")?;
    for row in rows {
        writeln!(
            out,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            row.address.ip(),
            row.address.port(),
            row.kind.name(),
            row.label,
            row.outcome,
            NodeFields::columns(row.fields.as_ref()).join("\t"),
            row.peers,
            row.max_recorded,
            row.statement,
        )?;
    }
    Ok(())
}

/// Reads `truth.tsv` of the directory that `serve` wrote.
///
/// # Errors
///
/// If the file cannot be read or a line is not as [`write()`] writes it.
pub fn read(dir: &Path) -> io::Result<Vec<Row>> {
    let path = dir.join(FILE);
    let text = fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let invalid = |line: usize| {
        let error = format!("{}:{line}: not a line of bitdash-simnet serve", path.display());
        io::Error::new(io::ErrorKind::InvalidData, error)
    };
    let mut lines = text.lines().enumerate();
    if lines.next().is_none_or(|(_, header)| header != HEADER) {
        return Err(invalid(1));
    }
    lines.map(|(at, line)| Row::parse(line).ok_or_else(|| invalid(at + 1))).collect()
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [host, port, kind, label, outcome, a, b, c, d, e, f, g, peers, max_recorded, statement] =
            columns[..]
        else {
            return None;
        };
        let outcome = outcome.parse().ok()?;
        let fields = match outcome {
            Outcome::Responded => Some(NodeFields::parse([a, b, c, d, e, f, g])?),
            _ => None,
        };
        Some(Self {
            address: Address::new(host.parse().ok()?, port.parse().ok()?),
            kind: [Kind::Node, Kind::Zoo, Kind::Dead].into_iter().find(|k| k.name() == kind)?,
            label: label.to_owned(),
            outcome,
            fields,
            peers: peers.parse().ok()?,
            max_recorded: max_recorded.parse().ok()?,
            statement: statement.to_owned(),
        })
    }
}

/// `Some(None)` for null, `None` for what cannot be parsed.
fn nullable<T: FromStr>(column: &str) -> Option<Option<T>> {
    if column == NULL { Some(None) } else { column.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::world::WorldParams;

    #[test]
    fn rows_survive_the_file() {
        let params =
            WorldParams { nodes: 50, silent: 5, refusing: 5, zoo: 1, ..WorldParams::default() };
        let rows = of_world(&World::generate(&params).unwrap());
        assert!(rows.iter().any(|row| row.max_recorded > 1));
        let dir = tempfile::tempdir().unwrap();
        let mut file = Vec::new();
        write(&rows, &mut file).unwrap();
        fs::write(dir.path().join(FILE), &file).unwrap();
        assert_eq!(read(dir.path()).unwrap(), rows);
        fs::write(dir.path().join(FILE), [&file, &b"127.1.2.3\n"[..]].concat()).unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("truth.tsv:{}: ", rows.len() + 2)), "{error}");
    }
}
