//! Nodes of a [`Churn`] that attack the crawl's order of candidates. Sans-I/O.
//!
//! They are up at all times, respond, and answer `getaddr` with lies. The price of an attack is the
//! number of /16s that it needs: addresses within one cost next to nothing.

use super::gossip::Table;
use super::{Churn, DAY, Life, Reliability};
use crate::network::distribution::Distributions;
use crate::network::gossip::{Entry, mix};
use crate::network::world::{WALL, WorldParams, draw};
use crate::node::profile::{Announces, Profile};
use bitdash_core::vocabulary::address::Address;

/// An attack.
#[derive(Clone, Debug)]
pub struct Attack {
    /// Number of attacking nodes; 0 for no attack.
    pub liars: usize,
    /// Number of /16s that they live in.
    pub groups: usize,
    /// Number of addresses that they have invented together.
    pub fakes: usize,
    /// Number of /16s whose liars name the same fakes at a time.
    pub chorus: usize,
    /// Share of a liar's reply that is true.
    pub true_share: f64,
    /// Whether the true part names honest nodes that are up, rather than what gossip contains.
    pub smears: bool,
    /// Whether the lies are addresses that have long left the network, as just seen.
    pub refreshes: bool,
    /// Whether liars never answer `getaddr` and claim to be software that takes its time.
    pub tarpits: bool,
    /// Whether all liars name the same fakes in the same minute, and other ones in the next.
    pub swarms: bool,
    /// Time of the lies, in seconds before they are told.
    pub age: u32,
}

impl Default for Attack {
    fn default() -> Self {
        Self {
            liars: 0,
            groups: 50,
            fakes: 1_000_000,
            chorus: 50,
            true_share: 0.0,
            smears: false,
            refreshes: false,
            tarpits: false,
            swarms: false,
            age: 60,
        }
    }
}

impl Churn {
    /// Whether a node attacks.
    pub fn is_liar(&self, node: usize) -> bool {
        node >= self.first_liar
    }

    /// The index of the first dead address that is not in honest gossip: the liars' fakes, then
    /// those that flooding nodes invent.
    pub(super) fn first_fake(&self) -> usize {
        self.dead_until(self.params.days * DAY) + 1
    }

    /// The index of the first dead address that a flooding node invents.
    pub(super) fn first_invented(&self) -> usize {
        let attack = &self.params.attack;
        self.first_fake() + if attack.liars > 0 { attack.fakes.max(1_000) } else { 0 }
    }

    pub(super) fn add_liars(
        &mut self,
        world: &WorldParams,
        distributions: &Distributions,
        rng: &mut fastrand::Rng,
    ) {
        let attack = self.params.attack.clone();
        if attack.liars == 0 {
            return;
        }
        let groups: Vec<u16> =
            (0..attack.groups.max(1)).map(|_| self.places.node(rng).group()).collect();
        for liar in 0..attack.liars {
            let group = u32::from(groups[liar % groups.len()]);
            let mut draw_address = || Address::new((group << 16 | rng.u32(1..0xffff)).into(), 8333);
            let mut address = draw_address();
            while self.by_address.contains_key(&address) {
                address = draw_address();
            }
            self.by_address.insert(address, self.nodes.len());
            let mut spec = draw::lone_node(world, distributions, address, None, rng);
            spec.announces = Announces::Never;
            spec.sends_peers = !attack.tarpits;
            (spec.profile, spec.user_agent) = if attack.tarpits {
                (Profile::OldCore, b"/Satoshi:0.21.1/".to_vec())
            } else {
                (Profile::NewCore, b"/Satoshi:28.1.0/".to_vec())
            };
            self.nodes.push(spec);
            self.lives.push(Life {
                reliability: Reliability::Stable,
                born: -365 * DAY as i64,
                gone: i64::MAX / 2,
                stretches: vec![(-1, i64::MAX / 2)],
            });
        }
    }
}

/// A liar's reply, `now` seconds after the start.
pub(super) fn reply(churn: &Churn, node: usize, round: u64, now: f64) -> Vec<Entry> {
    let attack = &churn.params.attack;
    let mut rng = fastrand::Rng::with_seed(mix(churn.params.seed, node as u64, round ^ 0x11a4));
    let mut entries = Vec::with_capacity(MAX_ENTRIES);
    let truths = (MAX_ENTRIES as f64 * attack.true_share) as usize;
    let time = (f64::from(WALL) + now) as u32 - attack.age;
    if attack.smears {
        while entries.len() < truths {
            let at = rng.usize(..churn.first_liar);
            if churn.lives[at].is_up(now as i64) {
                let spec = &churn.nodes[at];
                entries.push(Entry::ipv4(spec.address, spec.services, time));
            }
        }
    } else {
        Table::new(churn, node, now).draw(truths, &mut rng, &mut entries);
    }
    let window = window(churn, node, now);
    for at in 0..MAX_ENTRIES - entries.len() {
        let address = if attack.refreshes {
            let gone = churn.came_until(now - 2.0 * DAY);
            churn.unreachable_address(rng.usize(gone.saturating_sub(120_000)..gone.max(1)))
        } else {
            let fake = (window * MAX_ENTRIES + at) % attack.fakes.max(MAX_ENTRIES);
            churn.places.dead(churn.first_fake() + fake)
        };
        entries.push(Entry::ipv4(address, 3081, time));
    }
    rng.shuffle(&mut entries);
    entries
}

/// Which thousand of the fakes a liar names. Liars of `chorus` /16s, one each, name the same.
fn window(churn: &Churn, node: usize, now: f64) -> usize {
    let attack = &churn.params.attack;
    if attack.swarms {
        return (now / 60.0) as usize;
    }
    let liar = node - churn.first_liar;
    let (group, rank) = (liar % attack.groups.max(1), liar / attack.groups.max(1));
    let choirs = (attack.groups / attack.chorus.max(1)).max(1);
    rank * choirs + group % choirs
}

const MAX_ENTRIES: usize = 1_000;
