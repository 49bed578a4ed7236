//! Connecting to the database, for the writer and for the commands that only read.
//!
//! Invariants:
//! 1. What `database.url` leaves out is filled in as `psql` does.
//! 2. No error text contains the password.
//! 3. A server that vanished is noticed within 30 s, and a client by the server within a minute. A
//!    server that is connected but silent is not noticed here: see `writer::connection`.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use postgres::config::Host;
use postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::error::StoreError;
use super::password_file;
use crate::config::DatabaseUrl;
use crate::sys::clock::Clock;

/// Timeout for opening a socket to the database.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Delay before the next attempt while an operator waits.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Settings of every session. The server drops a client that vanished within a minute, so that the
/// lock of a crashed crawler does not outlive it for hours. Flash reads at random as fast as in
/// order. A crawler is idle between passes and keeps its session (`idle_session_timeout` since
/// version 14); it may take an hour to load (`transaction_timeout` since version 17).
// FreeSql#2049: a server's idle_session_timeout ended the session, and with it the lock.
const SESSION: &str = "SET client_min_messages = warning; SET TimeZone = 'UTC'; \
     SET search_path = public, bitdash_internal; SET statement_timeout = '120s'; SET idle_in_transaction_session_timeout = '120s'; \
     SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; \
     SET random_page_cost = 1.1; SHOW server_encoding; \
     SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')";

/// Makes the server notice within 2 s that a client was killed in the middle of a statement
/// (PostgreSQL 14 and newer, not on every system).
const CHECKED: &str = "SET client_connection_check_interval = '2s'";

/// Connects to the database that `url` names.
///
/// # Errors
/// Transient while it is away or starts up; permanent if an operator has to act.
pub fn connect(url: &str) -> Result<Client, StoreError> {
    let config = config_of(url)?;
    let mut client =
        config.connect(NoTls).map_err(|error| StoreError::of_connect(&error, &place(&config)))?;
    let answer = client.simple_query(SESSION);
    let answer = answer.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
    let encoding = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    if encoding != Some("UTF8") {
        return Err(StoreError::permanent(&format!(
            "the encoding of the database is {}, not UTF8: create one with \"createdb -T template0 -E UTF8 -l C NAME\"",
            encoding.unwrap_or("unknown")
        )));
    }
    if let Err(error) = client.batch_execute(CHECKED) {
        log::debug!("database without=\"{CHECKED}\" error=\"{error}\"");
    }
    Ok(client)
}

/// Connects for an operator who waits: retries while the database is away or starts up, and gives
/// up after `timeout` even if the server is frozen.
///
/// # Errors
/// Those of [`connect`], and transient after the timeout.
pub fn connect_within(url: &str, timeout: Duration) -> Result<Client, StoreError> {
    let server = place(&config_of(url)?);
    let (sender, receiver) = mpsc::sync_channel(1);
    let url = url.to_owned();
    let clock = Clock::new();
    // The crate has no timeout for a server that accepts the connection and then stays silent.
    thread::spawn(move || {
        loop {
            let result = connect(&url);
            // A server that is not there is told at once: it is the most common mistake.
            let is_away = matches!(result, Err(StoreError::Transient(_)));
            // An attempt that exceeds the timeout would replace this error by a vaguer one.
            if !is_away || clock.now().mono + 2 * RETRY_DELAY >= timeout {
                let _ = sender.send(result); // closed if the other thread has given up
                return;
            }
            pause();
        }
    });
    receiver.recv_timeout(timeout).unwrap_or_else(|_| {
        Err(StoreError::transient(&format!(
            "the database at {server} did not answer within {timeout:?}: is it PostgreSQL that listens there?"
        )))
    })
}

/// Blocks the thread for [`RETRY_DELAY`].
#[allow(clippy::disallowed_methods)]
pub(super) fn pause() {
    thread::sleep(RETRY_DELAY);
}

/// Parses `database.url` and fills in what it leaves out.
fn config_of(url: &str) -> Result<Config, StoreError> {
    let mut config: Config = url.parse().map_err(|error: postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        // Other errors of the parser may quote a part of the URL, such as the password.
        let cause =
            if cause.starts_with("invalid value for option") { cause } else { String::new() };
        StoreError::permanent(&format!(
            "database.url is not of the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE {cause}"
        ))
    })?;
    if DatabaseUrl::has_raw_at(url, &config) {
        let advice = "database.url contains a second @: write %40 for an @ in the password";
        return Err(StoreError::permanent(advice));
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if config.get_ports().is_empty()
        && let Some(port) = variable("PGPORT").and_then(|port| port.parse().ok())
    {
        config.port(port);
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
        config.host(&variable("PGHOST").unwrap_or_else(|| socket_directory(port).to_owned()));
    }
    if config.get_user().is_none()
        && let Some(user) = variable("PGUSER")
    {
        config.user(&user);
    }
    if config.get_password().is_none()
        && let Some(password) = variable("PGPASSWORD").or_else(|| password_file::find(&config))
    {
        config.password(password);
    }
    if config.get_application_name().is_none() {
        config.application_name("bitdash");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    config
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(20));
    config.notice_callback(|notice| log::debug!("database notice=\"{}\"", notice.message()));
    Ok(config)
}

fn socket(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!(".s.PGSQL.{port}"))
}

const DEFAULT_PORT: u16 = 5432;

/// The socket directory of a local server: Debian's, or PostgreSQL's own default.
fn socket_directory(port: u16) -> &'static str {
    const DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
    let exists = |directory: &&str| socket(Path::new(directory), port).exists();
    DIRECTORIES.into_iter().find(exists).unwrap_or(DIRECTORIES[0])
}

/// The server's address for messages, without the password.
fn place(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
    match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(name)), _) => format!("{name}:{port}"),
        (Some(Host::Unix(directory)), _) => socket(directory, port).display().to_string(),
        (None, Some(address)) => format!("{address}:{port}"),
        (None, None) => format!(":{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_url_is_permanent_and_never_quoted() {
        for url in [
            "postgresql://bob:se cret/ab?x",
            "host=h password=se cret",
            "postgresql://bob:secret@host:notaport/db",
            "postgresql://host/db?secret=1",
            // The crate would take the end of the password for the host and name it in an error.
            "postgresql://bob:se@cret@host/db",
            "postgresql://bob:se@cret/x@host/db",
        ] {
            let error = config_of(url).unwrap_err();
            assert!(!error.is_transient());
            assert!(!error.to_string().contains("cret"), "{error}");
        }
    }

    #[test]
    fn a_place_names_the_server_without_the_password() {
        let config = config_of("postgresql://bob:secret@db.example:5433/bitdash").unwrap();
        assert_eq!(place(&config), "db.example:5433");
        let config = config_of("postgresql://bob@/bitdash?host=/run/x&port=6000").unwrap();
        assert_eq!(place(&config), "/run/x/.s.PGSQL.6000");
    }

    #[test]
    fn a_url_without_a_host_leads_to_this_machine() {
        let config = config_of("postgresql:///bitdash").unwrap();
        assert_eq!(config.get_dbname(), Some("bitdash"));
        assert_eq!(config.get_hosts().len(), 1);
        assert_eq!(config.get_application_name(), Some("bitdash"));
    }

    #[test]
    fn a_server_that_vanished_is_noticed_within_half_a_minute() {
        let config = config_of("postgresql://db.example/bitdash").unwrap();
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(5)));
        assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(20)));
        assert!(config.get_keepalives());
        let (idle, retries) = (config.get_keepalives_idle(), config.get_keepalives_retries());
        let interval = config.get_keepalives_interval();
        let second = Duration::from_secs(1);
        assert_eq!((idle, interval, retries), (10 * second, Some(5 * second), Some(3)));
        // The URL takes precedence.
        let patient = config_of("postgresql://db.example/bitdash?connect_timeout=9").unwrap();
        assert_eq!(patient.get_connect_timeout(), Some(&(9 * second)));
    }
}
