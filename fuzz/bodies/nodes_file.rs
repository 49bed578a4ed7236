//! Any bytes as a nodes file: every accepted line is complete, every complaint is one line, and the
//! accepted lines round-trip.
//!
//! Input: the file.

use bitdash::net::nodes_file::{Host, NodesFile};

pub fn run(bytes: &[u8]) {
    let nodes = NodesFile::parse("nodes.txt", bytes, 8333);
    let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!(nodes.lines.len() <= newlines + 1);
    for complaint in &nodes.complaints {
        assert!(complaint.starts_with("nodes.txt:"), "{complaint:?}");
        assert!(!complaint.chars().any(char::is_control), "{complaint:?}");
        assert!(complaint.len() < 1_000, "{complaint:?}");
    }
    let mut text = String::new();
    for line in &nodes.lines {
        assert!(line.port != 0 && (1..=newlines + 1).contains(&line.number));
        let host = match &line.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        };
        assert!(!host.is_empty() && !host.contains(char::is_whitespace), "{host:?}");
        let name = line.name.as_deref().unwrap_or("");
        assert!(!name.chars().any(char::is_control), "{name:?}");
        text.push_str(&format!("{host} {} {name}\n", line.port));
    }
    let again = NodesFile::parse("nodes.txt", text.as_bytes(), 1);
    assert_eq!(again.complaints, [""; 0]);
    let fields = |nodes: &NodesFile| {
        let lines = nodes.lines.iter();
        lines.map(|line| (line.host.clone(), line.port, line.name.clone())).collect::<Vec<_>>()
    };
    assert_eq!(fields(&again), fields(&nodes));
}
