//! `Profile`: the behaviours of real nodes, and which software has which.
//!
//! `conversation` implements what a profile means, message by message.

use std::fmt;

/// How a node behaves in a conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Profile {
    /// Bitcoin Core 23 and newer, Knots included: answers `getaddr` at once.
    NewCore,
    /// Bitcoin Core 0.12 to 22: answers when an exponential timer of mean 30 s fires.
    OldCore,
    /// Bitcoin Core up to 0.11: answers on its trickle turn, with up to 2500 addresses.
    AncientCore,
    /// The Real Bitcoin: like `AncientCore`, and it bans a peer that sends an unknown command.
    Trb,
    /// bcoin: sends its `version` first and replies with its whole table.
    Bcoin,
    /// gocoin: replies with the nodes that it has itself seen alive; its `version` has no relay
    /// byte.
    Gocoin,
    /// Anything else: answers at once and tolerates everything.
    Other,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 7] = [
        Self::NewCore,
        Self::OldCore,
        Self::AncientCore,
        Self::Trb,
        Self::Bcoin,
        Self::Gocoin,
        Self::Other,
    ];

    /// The name in `truth.tsv` and `report.tsv`.
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

    /// Whether it is a Bitcoin Core.
    pub fn is_core(self) -> bool {
        matches!(self, Self::NewCore | Self::OldCore | Self::AncientCore)
    }

    /// Whether each `getaddr` gets a new sample; the others cache theirs for a day.
    pub fn resamples(self) -> bool {
        matches!(self, Self::AncientCore | Self::Trb | Self::Gocoin)
    }

    /// Maximum number of addresses in a reply.
    pub fn max_peers(self) -> usize {
        match self {
            Self::AncientCore | Self::Trb => 2500,
            Self::Gocoin => 500,
            Self::NewCore | Self::OldCore | Self::Bcoin | Self::Other => 1000,
        }
    }

    /// The profile and self-announcement of the software with this user agent. TRB is drawn
    /// separately and not recognized here.
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
            // Renamed builds keep the version of Core that they are based on.
            ("btcwire" | "BitcoinUnlimited", ..) => (Self::Other, Announces::Never),
            (_, 31.., _) => (Self::NewCore, Announces::BeforeReply),
            (_, 23..=30, _) => (Self::NewCore, Announces::InReply),
            _ => (Self::Other, Announces::Never),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When a node announces its own address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announces {
    /// Never.
    Never,
    /// In a message of one entry, right after the handshake.
    AtHandshake,
    /// In a message of one entry, after `getaddr` and before the reply.
    BeforeReply,
    /// As an additional entry of the reply.
    InReply,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_follow_from_user_agents() {
        for (agent, profile, announces) in [
            ("/Satoshi:31.0.0/", Profile::NewCore, Announces::BeforeReply),
            ("/Satoshi:28.1.0/Knots:20250305/", Profile::NewCore, Announces::InReply),
            ("/Satoshi:23.0.0/", Profile::NewCore, Announces::InReply),
            ("/Satoshi:22.0.0(FutureBit-Apollo-Node)/", Profile::OldCore, Announces::AtHandshake),
            ("/Satoshi:0.12.1/", Profile::OldCore, Announces::AtHandshake),
            ("/Satoshi:0.11.2/", Profile::AncientCore, Announces::Never),
            ("/Satoshi:0.8.6/", Profile::AncientCore, Announces::Never),
            ("/Statoshi:28.0.0/", Profile::NewCore, Announces::InReply),
            ("/btcwire:0.5.0/btcd:0.24.2/", Profile::Other, Announces::Never),
            ("/bcoin:2.2.0/", Profile::Bcoin, Announces::AtHandshake),
            ("/Gocoin:1.11.1pre/", Profile::Gocoin, Announces::Never),
            ("", Profile::Other, Announces::Never),
            ("pbtc", Profile::Other, Announces::Never),
        ] {
            assert_eq!(Profile::of_agent(agent), (profile, announces), "{agent}");
        }
    }
}
