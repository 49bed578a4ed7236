//! The steps of a conversation as text, for `--trace`: `>` marks sent and `<` received messages.

use std::fmt::Write;

use super::facts::host_text;
use crate::commands::screen::Screen;
use crate::commands::table::Table;
use bitdash_core::probe::trace::{Trace, TraceEvent, WaitedFor};
use watchglass::{Addr, Message, NetworkAddress, Version, text as agent_text};

/// A step as text; received data is escaped.
pub fn text(event: &TraceEvent) -> String {
    match event {
        TraceEvent::Connected => "connected".to_owned(),
        TraceEvent::Sent(message) => format!("> {}", message_text(message)),
        TraceEvent::Received(message) => format!("< {}", message_text(message)),
        TraceEvent::Garbage(error) => format!("< invalid data: {error}; we disconnect"),
        TraceEvent::Closed => "the peer closed the connection".to_owned(),
        TraceEvent::Failed(error) => format!("failed: {error}"),
        TraceEvent::TimeUp(WaitedFor::Connection) => "connection timed out".to_owned(),
        TraceEvent::TimeUp(WaitedFor::Version) => "no version in time; we disconnect".to_owned(),
        TraceEvent::TimeUp(WaitedFor::Reply) => "no peers in time; we disconnect".to_owned(),
        TraceEvent::TimeUp(WaitedFor::MoreOfReply) => {
            "no further addr: the reply is complete; we disconnect".to_owned()
        }
    }
}

/// The lines of a conversation, each with its time in ms since dialling.
pub fn lines(trace: &Trace, screen: &Screen, indent: usize) -> String {
    let mut table = Table::new(&["", ""]);
    for step in &trace.steps {
        let ms = step.at.as_micros() as f64 / 1_000.0;
        table.row([format!("{ms:>10.1} ms"), text(&step.event)]);
    }
    table.without_headings(screen, indent)
}

fn message_text(message: &Message) -> String {
    match message {
        Message::Version(version) => format!("version  {}", version_text(version)),
        Message::Addr(addr) => format!("addr  {}", addr_text(addr)),
        Message::Ping(Some(nonce)) => format!("ping  nonce {nonce:016x}"),
        Message::Pong(Some(nonce)) => format!("pong  nonce {nonce:016x}"),
        Message::Other { command, length } => format!("{command}  {length} bytes, skipped"),
        Message::Broken { command, error } => format!("{command}  invalid: {error}"),
        Message::Verack | Message::Getaddr | Message::Ping(None) | Message::Pong(None) => {
            message.command().to_string()
        }
    }
}

fn version_text(version: &Version) -> String {
    let place = |address: &NetworkAddress| format!("{} port {}", host_text(address), address.port);
    let mut out = format!(
        "{}, services {:#x}, time {}, to {}",
        version.version,
        version.services,
        version.timestamp,
        place(&version.addr_recv)
    );
    // Writing to a String cannot fail.
    if let Some(address) = &version.addr_from {
        let _ = write!(out, ", from {}", place(address));
    }
    if let Some(nonce) = version.nonce {
        let _ = write!(out, ", nonce {nonce:016x}");
    }
    if let Some(agent) = &version.user_agent {
        let _ = write!(out, ", {}", agent_text::from_bytes(agent));
    }
    if let Some(height) = version.start_height {
        let _ = write!(out, ", height {height}");
    }
    match version.relay {
        Some(relay) => {
            let _ = write!(out, ", relay {}", u8::from(relay));
        }
        None => out.push_str(", no relay byte"),
    }
    if version.trailing > 0 {
        let _ = write!(out, ", {} more bytes", version.trailing);
    }
    out
}

fn addr_text(addr: &Addr) -> String {
    let mut out = match addr.count {
        1 => "1 address".to_owned(),
        count => format!("{count} addresses"),
    };
    if addr.skipped > 0 {
        // Writing to a String cannot fail.
        let _ = write!(out, ", {} of them not IPv4", addr.skipped);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use bitdash_core::probe::trace::Step;
    use watchglass::{Command, DecodeError};

    fn version() -> Version {
        Version {
            version: 99_999,
            services: 1,
            timestamp: 1_800_000_000,
            addr_recv: NetworkAddress::from_ipv4(0, [10, 0, 0, 1].into(), 50_000),
            addr_from: Some(NetworkAddress::UNSPECIFIED),
            nonce: Some(0xab),
            user_agent: Some(b"/x\x1b:1/".to_vec()),
            user_agent_length: 6,
            start_height: Some(-1),
            relay: None,
            trailing: 0,
        }
    }

    #[test]
    fn every_step_is_one_line_of_printable_text() {
        let command = Command(*b"\x1b[2J\n\0\0\0\0\0\0\0");
        let wrong = DecodeError::WrongChecksum { expected: [0; 4], came: [1; 4] };
        let table = [
            (TraceEvent::Connected, "connected"),
            (TraceEvent::Sent(Message::Getaddr), "> getaddr"),
            (
                TraceEvent::Received(Message::Version(version())),
                "< version  99999, services 0x1, time 1800000000, to 10.0.0.1 port 50000, from :: port 0, \
                 nonce 00000000000000ab, /x\\x1b:1/, height -1, no relay byte",
            ),
            (
                TraceEvent::Received(Message::Other { command, length: 37 }),
                "< \\x1b[2J\\x0a  37 bytes, skipped",
            ),
            (
                TraceEvent::Received(Message::Broken { command: Command::ADDR, error: wrong }),
                "< addr  invalid: expected checksum 00000000, got 01010101",
            ),
            (TraceEvent::TimeUp(WaitedFor::Reply), "no peers in time; we disconnect"),
        ];
        let mut trace = Trace::default();
        for (event, expected) in table {
            assert_eq!(text(&event), expected);
            trace.steps.push(Step { at: Duration::from_micros(1_500), event });
        }
        let narrow = lines(&trace, &Screen { width: Some(60), ..Screen::PLAIN }, 2);
        assert!(narrow.lines().all(|line| line.len() <= 60), "{narrow}");
        let lines = lines(&trace, &Screen::PLAIN, 0);
        assert_eq!(lines.lines().count(), 6);
        assert!(lines.starts_with("       1.5 ms  connected\n"), "{lines}");
        assert!(lines.chars().all(|c| matches!(c, ' '..='~' | '\n')));
    }

    #[test]
    fn fields_that_a_version_lacks_are_not_shown() {
        let bare = Version {
            addr_from: None,
            nonce: None,
            user_agent: None,
            start_height: None,
            ..version()
        };
        assert_eq!(
            version_text(&bare),
            "99999, services 0x1, time 1800000000, to 10.0.0.1 port 50000, no relay byte"
        );
    }
}
