//! Misbehaviours whose user agent attacks the program that shows it: terminals, logs, web pages,
//! databases, spreadsheets.
//!
//! All are nodes; their user agents are stored as harmless text.

use crate::zoo::step::{answer_all, version};
use crate::zoo::{Claimed, Misbehaviour, responds_with};

pub(super) fn misbehaviours() -> Vec<Misbehaviour> {
    let long = [&b"/"[..], &[b'a'; 65_534], b"/"].concat();
    let every: Vec<u8> = (0..=255).collect();
    let agent = |name, does, agent: &[u8]| {
        let claimed = Claimed::agent(agent);
        let steps = answer_all(version(&claimed));
        responds_with(name, does, claimed, steps)
    };
    table! {
        agent("agent_of_nothing", "Has an empty user agent", b"");
        agent("agent_of_blanks", "Has a user agent of blanks", b"   ");
        agent("agent_with_nul", "Has zero bytes in its user agent", b"/nul:\0\0\0/\0");
        agent("agent_of_broken_utf8", "Has a user agent that is not UTF-8",
            b"/\xff\xfe\xc3(\xe2\x82/");
        agent("agent_of_every_byte", "Has every byte value in its user agent", &every);
        agent("agent_of_terminal_escapes", "Has escapes in its user agent that clear a terminal, name it and paste into it",
            b"\x1b[2J\x1b[H\x1b]0;owned\x07\x1b[31m/red/\x1b[?1049h\x9b31m\x1bc");
        agent("agent_of_a_forged_stats_line", "Has a line feed and a stats line in its user agent",
            b"/x/\n2026-01-01T00:00:00.000Z INFO stats pass=666 elapsed_s=1 sockets=0 max_sockets=0 db=up uplink=up\n");
        agent("agent_of_a_forged_error", "Has carriage returns and an error line in its user agent",
            b"/x/\r\n2026-01-01T00:00:00.000Z ERROR forged database state=down error=\"rm\"\r\r\n");
        agent("agent_with_log_fields", "Has the fields of a log line in its user agent, without a line feed",
            b"/x/ outcome=refused responded=999999 db=down error=\"\" ");
        agent("agent_of_markup", "Has a script in its user agent",
            b"</td><script>alert(document.cookie)</script><img src=x onerror=alert(1)>&amp;");
        agent("agent_of_sql", "Has SQL in its user agent",
            b"'; DROP TABLE nodes; --\"; $$ $1 ${x}");
        agent("agent_of_a_spreadsheet", "Has a spreadsheet's formula as its user agent",
            b"=cmd|' /C calc'!A0,+1+1,@SUM(1+1),-2+3\t=HYPERLINK(\"http://x\")");
        agent("agent_of_copy", "Has the end mark, null and separators of COPY in its user agent",
            b"\\.\n\\N\t\\N\n\\.\\x41\\\\");
        agent("agent_of_backslashes", "Has a user agent that looks escaped already",
            b"\\x1b[31m\\x00\\\\x41\\");
        agent("agent_of_null", "Has the null of COPY as its user agent", b"\\N");
        agent("agent_of_json", "Has quotes and braces in its user agent",
            b"\"},{\"outcome\":\"responded\",\"user_agent\":\"\\u0000\"}]\xe2\x80\xa8");
        agent("agent_of_formats", "Has format strings in its user agent",
            b"%s%n%x{}{0:?}$(id)`id`%00../../etc/passwd");
        agent("agent_from_right_to_left", "Has marks in its user agent that reverse the text",
            "/\u{202e}ihsotaS\u{202c}\u{200b}\u{feff}/".as_bytes());
        agent("agent_of_combining_marks", "Has stacked combining marks in its user agent",
            "/Z\u{334}\u{321}\u{340}\u{35c}a\u{327}\u{300}\u{301}l\u{338}g\u{489}o/".as_bytes());
        agent("agent_of_newlines", "Has a user agent of 100 line feeds", &[b'\n'; 100]);
        agent("agent_of_256_bytes", "Has a user agent of 256 bytes, the maximum that is stored",
            &[b'k'; 256]);
        agent("agent_of_257_bytes", "Has a user agent of one byte more than is stored", &[b'l'; 257]);
        agent("agent_of_256_escapes", "Has a user agent of 256 bytes that each need escaping",
            &[0x1b; 256]);
        agent("agent_of_64_kilobytes", "Has a user agent of 64 KB", &long);
    }
}
