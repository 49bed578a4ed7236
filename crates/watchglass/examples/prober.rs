//! A prober in some thirty lines of `std::net`: prints the `version` of a node.
//!
//! ```text
//! cargo run -p watchglass --example prober -- 127.0.0.1:8333
//! ```

#![allow(clippy::disallowed_methods)] // an example without an event loop

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use watchglass::{Command, Decoder, Magic, Message, NetworkAddress, Version, encode_message, text};

const TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: prober IP:PORT")?.parse()?;
    let version = probe(address)?;
    let agent = text::from_bytes(&version.user_agent.unwrap_or_default());
    println!("{address} {} {agent} height {:?}", version.version, version.start_height);
    Ok(())
}

fn probe(address: SocketAddrV4) -> Result<Version, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let user_agent = b"/prober:0.1/".to_vec();
    let ours = Version {
        version: 70_015,
        services: 0,
        timestamp: i64::try_from(now)?,
        addr_recv: NetworkAddress::from_ipv4(0, *address.ip(), address.port()),
        addr_from: Some(NetworkAddress::UNSPECIFIED),
        nonce: Some(RandomState::new().hash_one(now) | 1), // never 0: some nodes ban for it
        user_agent_length: user_agent.len() as u64,
        user_agent: Some(user_agent),
        start_height: Some(0),
        relay: Some(false),
        trailing: 0,
    };
    let (mut payload, mut out) = (Vec::new(), Vec::new());
    ours.encode(&mut payload);
    encode_message(Magic::MAIN, Command::VERSION, &payload, &mut out);
    let mut stream = TcpStream::connect_timeout(&address.into(), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&out)?;
    let (mut decoder, mut buffer, began) = (Decoder::new(Magic::MAIN), [0; 4096], Instant::now());
    while began.elapsed() < TIMEOUT {
        let length = stream.read(&mut buffer)?;
        let mut input = buffer.get(..length).filter(|bytes| !bytes.is_empty()).ok_or("closed")?;
        while let Some(message) = decoder.decode(&mut input)? {
            if let Message::Version(version) = message {
                return Ok(version); // dropping the stream disconnects
            }
        }
    }
    Err("no version before the timeout".into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::thread;

    use super::*;

    /// A node on loopback that answers one connection with these bytes after the first message.
    fn node(answer: Vec<u8>) -> (SocketAddrV4, thread::JoinHandle<Message>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!() };
        let heard = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut decoder, mut buffer) = (Decoder::new(Magic::MAIN), [0; 1024]);
            loop {
                let length = stream.read(&mut buffer).unwrap();
                if let Some(message) = decoder.decode(&mut &buffer[..length]).unwrap() {
                    stream.write_all(&answer).unwrap();
                    return message;
                }
            }
        });
        (address, heard)
    }

    #[test]
    fn prober_skips_unwanted_messages_before_the_version() {
        let theirs = Version {
            version: 99_999,
            services: 1,
            timestamp: 1_800_000_000,
            addr_recv: NetworkAddress::UNSPECIFIED,
            addr_from: Some(NetworkAddress::UNSPECIFIED),
            nonce: Some(1),
            user_agent: Some(b"/therealbitcoin.org:0.9.99.99/".to_vec()),
            user_agent_length: 30,
            start_height: Some(900_000),
            relay: None,
            trailing: 0,
        };
        let (mut payload, mut answer) = (Vec::new(), Vec::new());
        theirs.encode(&mut payload);
        encode_message(Magic::MAIN, Command::PING, &[0; 8], &mut answer);
        encode_message(Magic::MAIN, Command::VERSION, &payload, &mut answer);
        let (address, heard) = node(answer);
        assert_eq!(probe(address).unwrap(), theirs);
        let Message::Version(ours) = heard.join().unwrap() else { panic!() };
        assert_eq!((ours.services, ours.relay), (0, Some(false)));
        assert_ne!(ours.nonce, Some(0));
    }

    #[test]
    fn another_protocol_and_a_closed_connection_are_errors() {
        let (address, _) = node(b"HTTP/1.1 400 Bad Request\r\n".to_vec());
        assert!(probe(address).unwrap_err().to_string().starts_with("expected magic"));
        let (address, _) = node(Vec::new());
        assert_eq!(probe(address).unwrap_err().to_string(), "closed");
    }
}
