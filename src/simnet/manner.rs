//! `Manner`: the ways in which real nodes talk, and which software talks in which.
//!
//! Layer 2: plain data. What a manner means, message by message, stands in `behaviour`.

use std::fmt;

/// How a node behaves in a conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Manner {
    /// Bitcoin Core 23 and newer, Knots included: answers `getaddr` at once.
    NewCore,
    /// Bitcoin Core 0.12 to 22: answers when an exponential timer of mean 30 s fires.
    OldCore,
    /// Bitcoin Core up to 0.11: answers on its trickle turn, with up to 2500 addresses.
    AncientCore,
    /// The Real Bitcoin: as the ancient ones, and it bans for every command that it does not know.
    Trb,
    /// bcoin: speaks first and hands out its whole table.
    Bcoin,
    /// gocoin: hands out what it has itself seen alive, without a relay byte.
    Gocoin,
    /// Anything else: answers at once and forgives everything.
    Other,
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NewCore,
        Self::OldCore,
        Self::AncientCore,
        Self::Trb,
        Self::Bcoin,
        Self::Gocoin,
        Self::Other,
    ];

    /// The name in the files that the simulated network writes.
    pub fn name(self) -> &'static str {
        match self {
            Self::NewCore => "new_core",
            Self::OldCore => "old_core",
            Self::AncientCore => "ancient_core",
            Self::Trb => "trb",
            Self::Bcoin => "bcoin",
            Self::Gocoin => "gocoin",
            Self::Other => "other",
        }
    }

    /// Whether it is one of Bitcoin Core's.
    pub fn is_core(self) -> bool {
        matches!(self, Self::NewCore | Self::OldCore | Self::AncientCore)
    }

    /// Whether a new sample is drawn for every `getaddr`; the others cache theirs for a day.
    pub fn resamples(self) -> bool {
        matches!(self, Self::AncientCore | Self::Trb | Self::Gocoin)
    }

    /// The most addresses that a reply holds.
    pub fn most_peers(self) -> usize {
        match self {
            Self::AncientCore | Self::Trb => 2500,
            Self::Gocoin => 500,
            Self::NewCore | Self::OldCore | Self::Bcoin | Self::Other => 1000,
        }
    }

    /// The manner and the kind of self-announcement of the software that calls itself `agent`. TRB is
    /// not told apart here: its name says nothing, and it is drawn by itself.
    pub fn of_agent(agent: &str) -> (Self, Announces) {
        let name = agent.trim_start_matches('/').split(':').next().unwrap_or_default();
        let mut numbers = agent
            .split(':')
            .nth(1)
            .unwrap_or_default()
            .split(|c: char| !c.is_ascii_digit())
            .map(|digits| digits.parse::<u32>().unwrap_or(0));
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        match (name, major, minor) {
            ("Satoshi", 0, 0..=11) => (Self::AncientCore, Announces::Never),
            ("Satoshi", 0..=22, _) | ("Classic", ..) => (Self::OldCore, Announces::AtHandshake),
            ("bcoin", ..) => (Self::Bcoin, Announces::AtHandshake),
            ("Gocoin", ..) => (Self::Gocoin, Announces::Never),
            // Renamed builds keep the version of the Core that they are made from.
            ("btcwire" | "BitcoinUnlimited", ..) => (Self::Other, Announces::Never),
            (_, 31.., _) => (Self::NewCore, Announces::BeforeReply),
            (_, 23..=30, _) => (Self::NewCore, Announces::InReply),
            _ => (Self::Other, Announces::Never),
        }
    }
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When a node tells its own address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announces {
    /// Not at all.
    Never,
    /// In a message of one entry, right after the handshake.
    AtHandshake,
    /// In a message of one entry, after `getaddr` and before the reply.
    BeforeReply,
    /// As one more entry of the reply.
    InReply,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_is_told_by_its_agent() {
        for (agent, manner, announces) in [
            ("/Satoshi:31.0.0/", Manner::NewCore, Announces::BeforeReply),
            ("/Satoshi:28.1.0/Knots:20250305/", Manner::NewCore, Announces::InReply),
            ("/Satoshi:23.0.0/", Manner::NewCore, Announces::InReply),
            ("/Satoshi:22.0.0(FutureBit-Apollo-Node)/", Manner::OldCore, Announces::AtHandshake),
            ("/Satoshi:0.12.1/", Manner::OldCore, Announces::AtHandshake),
            ("/Satoshi:0.11.2/", Manner::AncientCore, Announces::Never),
            ("/Satoshi:0.8.6/", Manner::AncientCore, Announces::Never),
            ("/Statoshi:28.0.0/", Manner::NewCore, Announces::InReply),
            ("/btcwire:0.5.0/btcd:0.24.2/", Manner::Other, Announces::Never),
            ("/bcoin:2.2.0/", Manner::Bcoin, Announces::AtHandshake),
            ("/Gocoin:1.11.1pre/", Manner::Gocoin, Announces::Never),
            ("", Manner::Other, Announces::Never),
            ("pbtc", Manner::Other, Announces::Never),
        ] {
            assert_eq!(Manner::of_agent(agent), (manner, announces), "{agent}");
        }
    }
}
