//! Beasts that end the connection, or half of it, at every step of the conversation.
//!
//! Layer 2: plain data. Before `version` an end is the outcome; behind it, it changes nothing, even where
//! the end comes before the `version` was read.

use crate::crawl::outcome::Outcome;
use crate::simnet::behaviour::Close;
use crate::simnet::zoo::act::{Act, blank, greeted, hear_version, nowhere, plain, say, wait_ms};
use crate::simnet::zoo::{Beast, Said};
use crate::watchglass::Command;

pub(super) fn beasts() -> Vec<Beast> {
    let early = |name, does, acts: Vec<Act>, close| {
        let acts = [acts, vec![Act::End(close)]].concat();
        Beast::fails(name, does, Outcome::Closed, acts)
    };
    let late = |name, does, acts: Vec<Act>, close| {
        let acts = [acts, vec![Act::End(close)]].concat();
        Beast::responds(name, does, Said::plain(), acts)
    };
    let heard = || vec![hear_version()];
    let part = |length: usize| vec![hear_version(), say(plain()[..length].to_vec()), wait_ms(20)];
    let asked = || greeted(vec![Act::Hear(Command::GETADDR)]);
    let mid_addr = || [asked(), vec![blank("addr", 30_003, 10_000), wait_ms(20)]].concat();
    let replied = || [asked(), vec![say(nowhere()), wait_ms(20)]].concat();
    let (fin, reset, half) = (Close::Fin, Close::Reset, Close::Half);
    vec![
        early("closes_at_once", "Accepts and closes", vec![], fin),
        early("closes_after_our_version", "Closes when it has read our version", heard(), fin),
        early("closes_in_header", "Closes within the header of its version", part(10), fin),
        early("closes_in_version", "Closes within its version", part(80), fin),
        late("closes_after_version", "Closes when it has said its version", greeted(vec![]), fin),
        late("closes_in_addr", "Closes within its reply to getaddr", mid_addr(), fin),
        late("closes_after_addr", "Closes behind its reply to getaddr", replied(), fin),
        early("resets_at_once", "Accepts and resets", vec![], reset),
        early("resets_after_our_version", "Resets when it has read our version", heard(), reset),
        early("resets_in_header", "Resets within the header of its version", part(10), reset),
        early("resets_in_version", "Resets within its version", part(80), reset),
        late("resets_after_version", "Resets when it has said its version", greeted(vec![]), reset),
        late(
            "resets_behind_a_hasty_version",
            "Says its version as soon as we are connected, and resets",
            vec![say(plain())],
            reset,
        ),
        late(
            "closes_behind_a_hasty_version",
            "Says its version as soon as we are connected, and closes",
            vec![say(plain())],
            fin,
        ),
        late("resets_after_getaddr", "Resets when it is asked for its peers", asked(), reset),
        late("resets_in_addr", "Resets within its reply to getaddr", mid_addr(), reset),
        late("resets_after_addr", "Resets behind its reply to getaddr", replied(), reset),
        early(
            "half_closes_at_once",
            "Ends its half of the connection at once and listens on",
            vec![],
            half,
        ),
        early(
            "half_closes_in_version",
            "Ends its half within its version and listens on",
            part(80),
            half,
        ),
        late(
            "half_closes_after_version",
            "Ends its half behind its version and listens on",
            greeted(vec![]),
            half,
        ),
        late(
            "half_closes_after_addr",
            "Ends its half behind its reply to getaddr and listens on",
            replied(),
            half,
        ),
    ]
}
