//! Beasts whose user agent is meant for whoever shows it: terminals, logs, web pages, databases, spreadsheets.
//!
//! Layer 2: plain data. All of them are nodes; what they say is stored as text that does no harm.

use crate::simnet::zoo::act::{version, visit};
use crate::simnet::zoo::{Beast, Said};

pub(super) fn beasts() -> Vec<Beast> {
    let long = [&b"/"[..], &[b'a'; 65_534], b"/"].concat();
    let every: Vec<u8> = (0..=255).collect();
    let table: [(&'static str, &'static str, &[u8]); 24] = [
        ("agent_of_nothing", "Has an empty user agent", b""),
        ("agent_of_blanks", "Has a user agent of blanks", b"   "),
        ("agent_with_nul", "Has zero bytes in its user agent", b"/nul:\0\0\0/\0"),
        ("agent_of_broken_utf8", "Has a user agent that is no UTF-8", b"/\xff\xfe\xc3(\xe2\x82/"),
        ("agent_of_every_byte", "Has every byte there is in its user agent", &every),
        (
            "agent_of_terminal_escapes",
            "Has escapes in its user agent that clear a terminal, name it and paste into it",
            b"\x1b[2J\x1b[H\x1b]0;owned\x07\x1b[31m/red/\x1b[?1049h\x9b31m\x1bc",
        ),
        (
            "agent_of_a_forged_stats_line",
            "Has a line feed and a stats line in its user agent",
            b"/x/\n2026-01-01T00:00:00Z [INFO] stats pass=666 elapsed_s=1 sockets=0 max_sockets=0 db=up line=up\n",
        ),
        (
            "agent_of_a_forged_error",
            "Has carriage returns and an error line in its user agent",
            b"/x/\r\n2026-01-01T00:00:00Z [ERROR] forged database state=down error=\"rm\"\r\r\n",
        ),
        (
            "agent_that_says_key_and_value",
            "Has the fields of a log line in its user agent, without a line feed",
            b"/x/ outcome=refused responded=999999 db=down error=\"\" ",
        ),
        (
            "agent_of_markup",
            "Has a script in its user agent",
            b"</td><script>alert(document.cookie)</script><img src=x onerror=alert(1)>&amp;",
        ),
        ("agent_of_sql", "Has SQL in its user agent", b"'; DROP TABLE nodes; --\"; $$ $1 ${x}"),
        (
            "agent_of_a_spreadsheet",
            "Has a spreadsheet's formula as its user agent",
            b"=cmd|' /C calc'!A0,+1+1,@SUM(1+1),-2+3\t=HYPERLINK(\"http://x\")",
        ),
        (
            "agent_of_copy",
            "Has the end mark, null and separators of COPY in its user agent",
            b"\\.\n\\N\t\\N\n\\.\\x41\\\\",
        ),
        ("agent_of_backslashes", "Has a user agent that looks escaped already", b"\\x1b[31m\\x00\\\\x41\\"),
        ("agent_of_null", "Has the word for null as its user agent", b"\\N"),
        (
            "agent_of_json",
            "Has quotes and braces in its user agent",
            b"\"},{\"outcome\":\"responded\",\"user_agent\":\"\\u0000\"}]\xe2\x80\xa8",
        ),
        ("agent_of_formats", "Has format strings in its user agent", b"%s%n%x{}{0:?}$(id)`id`%00../../etc/passwd"),
        (
            "agent_from_right_to_left",
            "Has marks in its user agent that turn the text around",
            "/\u{202e}ihsotaS\u{202c}\u{200b}\u{feff}/".as_bytes(),
        ),
        (
            "agent_of_combining_marks",
            "Has letters under towers of marks in its user agent",
            "/Z\u{334}\u{321}\u{340}\u{35c}a\u{327}\u{300}\u{301}l\u{338}g\u{489}o/".as_bytes(),
        ),
        ("agent_of_newlines", "Has nothing but line feeds in its user agent", &[b'\n'; 100]),
        ("agent_of_256_bytes", "Has a user agent of 256 bytes, the most that is kept", &[b'k'; 256]),
        ("agent_of_257_bytes", "Has a user agent of one byte more than is kept", &[b'l'; 257]),
        (
            "agent_of_256_escapes",
            "Has a user agent of 256 bytes that each need escaping",
            &[0x1b; 256],
        ),
        ("agent_of_64_kilobytes", "Has a user agent of 64 KB", &long),
    ];
    let beasts = table.into_iter().map(|(name, does, agent)| {
        let said = Said::agent(agent);
        let acts = visit(version(&said));
        Beast::responds(name, does, said, acts)
    });
    beasts.collect()
}
