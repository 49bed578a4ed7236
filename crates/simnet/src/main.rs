//! The `bitdash-simnet` command: a simulated Bitcoin network on loopback.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitdash_simnet::network::world::{World, WorldParams};
use bitdash_simnet::past;
use bitdash_simnet::serve::{STOP, Server, report};
use bitdash_simnet::verify::{self, truth};
use bitdash_simnet::zoo;
use clap::{Args, Parser};
use ipnet::Ipv4Net;
use mio::Interest;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

/// A simulated Bitcoin network on loopback, for trying and testing a crawler
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
enum Command {
    /// Serves a simulated network until SIGTERM or SIGINT
    ///
    /// Thousands of nodes on addresses of 127.0.0.0/8 behave like real ones: new and old Bitcoin
    /// Core, TRB (which bans a peer that sends an unknown command), bcoin, gocoin and others, with
    /// user agents, services, ports and heights drawn from the real network. Their replies to
    /// getaddr are full of dead addresses, which stay silent or refuse. The same seed gives the
    /// same network.
    ///
    /// Before it prints `ready` it writes truth.tsv (each address and what a crawler must record of
    /// it) and seeds.txt (a nodes file to start from) to DIR. At its end it writes report.tsv and
    /// connections.tsv: what it saw of the crawler.
    Serve(ServeArguments),

    /// Compares a crawled database with what `serve` served
    ///
    /// Every node must be recorded with each field as served, every misbehaving address as stated,
    /// and nothing else as a node. Prints the first differences and a summary. Exit status: 0 no
    /// difference, 1 a difference or a failure, 2 wrong usage.
    Check {
        /// URL of the database
        #[arg(value_name = "URL")]
        url: String,

        /// Directory that `serve` wrote
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },

    /// Invents a past for a crawled database, so that charts show years and not one pass
    ///
    /// Adds days before the first pass: the number of nodes of each species, version and so on, and
    /// what each node answered. The website says on every page that they are invented. Refuses a
    /// database with real nodes.
    History {
        /// URL of the database
        #[arg(value_name = "URL")]
        url: String,

        /// Number of years
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
        years: u32,

        /// Seed of the random numbers
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
    },

    /// Lists the misbehaviours of the zoo, each with what a crawler must record of it
    Zoo,
}

#[derive(Args)]
struct ServeArguments {
    /// Directory for its files; created if missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 2000)]
    nodes: usize,

    /// Number of dead addresses
    #[arg(long, value_name = "N", default_value_t = 6000)]
    dead: usize,

    /// Share of the dead addresses that stay silent; the others refuse
    #[arg(long, value_name = "SHARE", default_value_t = 0.83, value_parser = share)]
    silent: f64,

    /// Number of TRB nodes, or their share if it has a decimal point [default: 1 %, at least 9]
    #[arg(long, value_name = "N|SHARE", value_parser = trb)]
    trb: Option<Trb>,

    /// Number of peers with each misbehaviour: silence, floods, forgeries (see `zoo`)
    #[arg(long, value_name = "N", default_value_t = 0)]
    zoo: usize,

    /// Share of the nodes that send no peers
    #[arg(long, value_name = "SHARE", default_value_t = 0.28, value_parser = share)]
    mute: f64,

    /// Share of each reply that is odd: IPv6, duplicates, port 0, private addresses
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    odd: f64,

    /// Share of the peer-sending nodes that pad each reply with invented addresses
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    flood: f64,

    /// Number of nodes in seeds.txt
    #[arg(long, value_name = "N", default_value_t = 20)]
    seeds: usize,

    /// Seed of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Factor for the nodes' delays; with 1, as in the real network, an old Bitcoin Core takes half
    /// a minute to reply
    #[arg(long, value_name = "FACTOR", default_value_t = 0.05, value_parser = factor)]
    time_scale: f64,

    /// Round-trip times: on (median 110 ms, times the time scale), off, or a factor
    #[arg(long, value_name = "on|off|FACTOR", default_value = "on", value_parser = latency)]
    latency: f64,

    /// Added to every port, so that several networks fit on one machine; ports outside 1024-32767
    /// wrap around
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,

    /// Network of all addresses, inside 127.0.0.0/8; 127.0.0.0/16 stays unused
    #[arg(long, value_name = "NET", default_value = "127.0.0.0/8")]
    net: Ipv4Net,
}

const EXAMPLES: &str = "\
Examples:
  bitdash-simnet serve net              2,000 nodes, 6,000 dead addresses, 20 times as fast as real
  bitdash-simnet serve net --nodes 200 --dead 300 --port-offset 1000
  bitdash-simnet serve net --time-scale 1     as slow as the real network
  bitdash-simnet serve net --zoo 1            with one peer of each misbehaviour
  bitdash-simnet check postgresql:///bitdash net
  bitdash-simnet history postgresql:///bitdash --years 5
Nothing leaves the machine: connections that do not come from loopback are dropped.";

#[derive(Clone, Copy)]
enum Trb {
    Number(usize),
    Share(f64),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Serve(arguments) => serve(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Check { url, dir } => check(&url, &dir),
        Command::History { url, years, seed } => invent(&url, years, seed),
        Command::Zoo => Ok(list_zoo()),
    };
    result.unwrap_or_else(|error| {
        eprint!("bitdash-simnet: {error}");
        let mut source = error.source();
        while let Some(error) = source {
            eprint!(": {error}");
            source = error.source();
        }
        eprintln!();
        ExitCode::FAILURE
    })
}

fn check(url: &str, dir: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let comparison = verify::check(url, dir)?;
    println!("{comparison}");
    Ok(if comparison.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn invent(url: &str, years: u32, seed: u64) -> Result<ExitCode, Box<dyn Error>> {
    let invented = past::invent(url, years, seed)?;
    println!("{} days of {} nodes invented", invented.days, invented.nodes);
    Ok(ExitCode::SUCCESS)
}

fn list_zoo() -> ExitCode {
    let mut out = io::stdout().lock();
    for misbehaviour in zoo::all() {
        // The reader may have closed the pipe.
        if writeln!(out, "{}: {}", misbehaviour.name, misbehaviour.statement()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn serve(arguments: &ServeArguments) -> Result<(), Box<dyn Error>> {
    let world = Arc::new(World::generate(&params(arguments))?);
    let dir = arguments.dir.as_path();
    let named = |error: io::Error| format!("cannot write to {}: {error}", dir.display());
    let mut server = Server::open(world.clone())?;
    if let Some(why) = server.exposed() {
        eprintln!(
            "bitdash-simnet: the listeners are open on all interfaces ({why}); connections from \
             elsewhere are dropped"
        );
    }
    if io::stdout().is_terminal() {
        server.show_progress(|open, all| println!("{open} connections open, {all} so far"));
    }
    // Before `ready`: a reader of that line may send a signal at once.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    server.registry().register(&mut signals, STOP, Interest::READABLE)?;
    write_world(dir, &world).map_err(named)?;
    let silent = silent(arguments);
    println!(
        "ready nodes={} silent={silent} refusing={} zoo={} dir={}",
        world.nodes().len(),
        world.dead().len() - silent,
        world.placements().len(),
        dir.display()
    );
    // The reader may have closed the pipe.
    let _ = io::stdout().flush();
    let seen = server.run()?;
    write(&dir.join("report.tsv"), |out| seen.write(out)).map_err(named)?;
    write(&dir.join("connections.tsv"), |out| seen.write_connections(&world, out))
        .map_err(named)?;
    Ok(())
}

fn silent(arguments: &ServeArguments) -> usize {
    (arguments.dead as f64 * arguments.silent).round() as usize
}

fn params(arguments: &ServeArguments) -> WorldParams {
    let silent = silent(arguments);
    WorldParams {
        seed: arguments.seed,
        nodes: arguments.nodes,
        silent,
        refusing: arguments.dead - silent,
        zoo: arguments.zoo,
        trb: arguments.trb.map(|trb| match trb {
            Trb::Number(nodes) => nodes,
            Trb::Share(share) => (arguments.nodes as f64 * share).round() as usize,
        }),
        seeds: arguments.seeds,
        mute_share: arguments.mute,
        odd_share: arguments.odd,
        flood_share: arguments.flood,
        net: arguments.net,
        port_offset: arguments.port_offset,
        wall: wall_clock(),
        time_scale: arguments.time_scale,
        latency: arguments.latency,
        ..WorldParams::default()
    }
}

/// Seconds since 1970, the base of the times in `version` and `addr` messages.
#[allow(clippy::disallowed_methods)] // the only reading of the wall clock
fn wall_clock() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn write_world(dir: &Path, world: &World) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for stale in ["report.tsv", "connections.tsv"] {
        match fs::remove_file(dir.join(stale)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    write(&dir.join(truth::FILE), |out| truth::write(&truth::of_world(world), out))?;
    write(&dir.join("seeds.txt"), |out| report::write_seeds(world, out))
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    content(&mut out)?;
    out.flush()
}

fn share(text: &str) -> Result<f64, String> {
    number_up_to(1.0, text)
}

fn factor(text: &str) -> Result<f64, String> {
    number_up_to(1000.0, text)
}

fn number_up_to(max: f64, text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=max).contains(&number) { Ok(number) } else { Err(format!("not between 0 and {max}")) }
}

fn latency(text: &str) -> Result<f64, String> {
    match text {
        "on" => Ok(1.0),
        "off" => Ok(0.0),
        _ => factor(text).map_err(|error| format!("neither on nor off, and {error}")),
    }
}

fn trb(text: &str) -> Result<Trb, String> {
    if text.contains('.') {
        return share(text).map(Trb::Share);
    }
    text.parse().map(Trb::Number).map_err(|_| "not a number".to_owned())
}
