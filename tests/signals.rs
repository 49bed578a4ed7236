//! Signals, in a separate process: raising them would disturb other tests.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use bitdash::sys::signal::{Signal, Signals};
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Polls until signals arrive, for at most ten seconds.
fn wait_for(poll: &mut Poll, signals: &mut Signals) -> Vec<Signal> {
    let mut events = Events::with_capacity(4);
    for _ in 0..100 {
        match poll.poll(&mut events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.unwrap(),
        }
        if events.iter().any(|event| event.token() == Token(7)) {
            let got: Vec<Signal> = signals.pending().collect();
            if !got.is_empty() {
                return got;
            }
        }
    }
    Vec::new()
}

#[test]
fn a_service_manager_is_told_of_start_reload_and_stop() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let receive = || {
        let mut message = [0; 200];
        let length = socket.recv(&mut message).expect("a message");
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let config =
        "[filter]\nonly = [\"127.0.0.0/8\"]\n[database]\nurl = \"postgresql://x@/x?host=/none\"";
    std::fs::write(directory.path().join("bitdash.toml"), config).unwrap();
    std::fs::write(directory.path().join("nodes.txt"), "127.0.0.1 1\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitdash"));
    command.arg("crawl").current_dir(directory.path()).env("NOTIFY_SOCKET", &path);
    let mut child =
        command.env_remove("BITDASH_DATABASE_URL").stderr(Stdio::null()).spawn().unwrap();
    let signal = |signal: &str| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    assert_eq!(receive(), "READY=1");
    // The second one with an invalid configuration.
    for config in [config, "oops"] {
        std::fs::write(directory.path().join("bitdash.toml"), config).unwrap();
        signal("-HUP");
        let reloading = receive();
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        assert_eq!(receive(), "READY=1");
    }
    signal("-TERM");
    assert_eq!(receive(), "STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn signals_arrive_as_poll_events() {
    let mut signals = Signals::new().unwrap();
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut signals, Token(7), Interest::READABLE).unwrap();
    let table = [(SIGHUP, Signal::Reload), (SIGTERM, Signal::Stop), (SIGINT, Signal::Stop)];
    for (raised, expected) in table {
        signal_hook::low_level::raise(raised).unwrap();
        assert_eq!(wait_for(&mut poll, &mut signals), [expected]);
    }
}
