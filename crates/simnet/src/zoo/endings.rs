//! Misbehaviours that close the connection, or half of it, at each step of the conversation.
//!
//! Before `version` the close is the outcome. After it, it changes nothing, even if it arrives
//! before the `version` was read.

use crate::node::conversation::Close;
use crate::zoo::step::{
    Step, after_handshake, expect_version, header_and_zeros, plain, send, unreachable_addr, wait_ms,
};
use crate::zoo::{Misbehaviour, fails, responds};
use bitdash_core::vocabulary::outcome::Outcome;
use watchglass::Command;

pub(super) fn misbehaviours() -> Vec<Misbehaviour> {
    let early = |name, does, steps: Vec<Step>, close| {
        let steps = [steps, vec![Step::Close(close)]].concat();
        fails(name, does, Outcome::Closed, steps)
    };
    let late = |name, does, steps: Vec<Step>, close| {
        let steps = [steps, vec![Step::Close(close)]].concat();
        responds(name, does, steps)
    };
    let reads = || vec![expect_version()];
    let part =
        |length: usize| vec![expect_version(), send(plain()[..length].to_vec()), wait_ms(20)];
    let asked = || after_handshake(vec![Step::Expect(Command::GETADDR)]);
    let mid_addr =
        || [asked(), vec![header_and_zeros("addr", 30_003, 10_000), wait_ms(20)]].concat();
    let replied = || [asked(), vec![send(unreachable_addr()), wait_ms(20)]].concat();
    let (fin, reset, half) = (Close::Fin, Close::Reset, Close::Half);
    table! {
        early("closes_at_once", "Accepts and closes", vec![], fin);
        early("closes_after_our_version", "Closes when it has read our version", reads(), fin);
        early("closes_in_header", "Closes within the header of its version", part(10), fin);
        early("closes_in_version", "Closes within its version", part(80), fin);
        late("closes_after_version", "Closes when it has sent its version",
            after_handshake(vec![]), fin);
        late("closes_in_addr", "Closes within its reply to getaddr", mid_addr(), fin);
        late("closes_after_addr", "Closes after its reply to getaddr", replied(), fin);
        early("resets_at_once", "Accepts and resets", vec![], reset);
        early("resets_after_our_version", "Resets when it has read our version", reads(), reset);
        early("resets_in_header", "Resets within the header of its version", part(10), reset);
        early("resets_in_version", "Resets within its version", part(80), reset);
        late("resets_after_version", "Resets when it has sent its version",
            after_handshake(vec![]), reset);
        late("resets_after_an_early_version", "Sends its version as soon as the connection is open, and resets",
            vec![send(plain())], reset);
        late("closes_after_an_early_version", "Sends its version as soon as the connection is open, and closes",
            vec![send(plain())], fin);
        late("resets_after_getaddr", "Resets when it receives getaddr", asked(), reset);
        late("resets_in_addr", "Resets within its reply to getaddr", mid_addr(), reset);
        late("resets_after_addr", "Resets after its reply to getaddr", replied(), reset);
        early("half_closes_at_once", "Closes its sending half of the connection at once and keeps receiving",
            vec![], half);
        early("half_closes_in_version", "Closes its sending half within its version and keeps receiving",
            part(80), half);
        late("half_closes_after_version", "Closes its sending half after its version and keeps receiving",
            after_handshake(vec![]), half);
        late("half_closes_after_addr", "Closes its sending half after its reply to getaddr and keeps receiving",
            replied(), half);
    }
}
