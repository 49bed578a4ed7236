//! The `bitdash-simnet` command: a simulated Bitcoin network on loopback.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bitdash::io::clock::Clock;
use bitdash::simnet::report;
use bitdash::simnet::serve::{STOP, Server};
use bitdash::simnet::world::{DeadKind, World, WorldParams};
use bitdash::simnet::zoo;
use clap::Parser;
use ipnet::Ipv4Net;
use mio::Interest;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

/// Serves a simulated Bitcoin network on loopback, for trying and testing a crawler.
///
/// Thousands of nodes on addresses of 127.0.0.0/8 talk as the real ones do: new and old Bitcoin Core,
/// TRB (which bans whoever sends what it does not know), bcoin, gocoin and others, with user agents,
/// services, ports and heights drawn from the real network. Their replies to getaddr are full of dead
/// addresses, which stay silent or refuse. The same seed gives the same network.
///
/// Before it prints `ready` it writes into its directory what it serves: nodes.tsv (each node and what
/// it should be recorded as), zoo.tsv (the same for the beasts), dead.tsv and seeds.txt (where to start from). On SIGTERM or SIGINT it
/// writes what it saw of the crawler, report.tsv and connections.tsv, and ends.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 2000)]
    nodes: usize,

    /// How many dead addresses
    #[arg(long, value_name = "N", default_value_t = 6000)]
    dead: usize,

    /// Which share of the dead stays silent; the others refuse
    #[arg(long, value_name = "SHARE", default_value_t = 0.83, value_parser = share)]
    silent: f64,

    /// How many nodes are TRB: a number, or a share with a decimal point; 1 % and at least 9 if not
    /// given
    #[arg(long, value_name = "N|SHARE", value_parser = trb)]
    trb: Option<Trb>,

    /// How many of each beast of the zoo, the bad behaviours: silence, floods, forgeries (see --list-zoo)
    #[arg(long, value_name = "N", default_value_t = 0)]
    zoo: usize,

    /// Print the beasts of the zoo, each with what a crawler must record of it, and end
    #[arg(long)]
    list_zoo: bool,

    /// Which share of the nodes sends no peers
    #[arg(long, value_name = "SHARE", default_value_t = 0.28, value_parser = share)]
    mute: f64,

    /// Which share of a reply is odd: IPv6, doubles, port 0, private addresses
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    odd: f64,

    /// Which share of the nodes that send peers fills up each reply with addresses that it invents
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    flood: f64,

    /// How many nodes seeds.txt names
    #[arg(long, value_name = "N", default_value_t = 20)]
    seeds: usize,

    /// Everything that is drawn depends on this number
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// What the nodes' delays are multiplied with: 1 is the real network, where an old Bitcoin Core
    /// takes half a minute to answer
    #[arg(long, value_name = "FACTOR", default_value_t = 0.05, value_parser = factor)]
    time_scale: f64,

    /// Round trip times: on (110 ms in the middle, times the time scale), off, or a factor
    #[arg(long, value_name = "on|off|FACTOR", default_value = "on", value_parser = latency)]
    latency: f64,

    /// Added to every port, so that several networks fit on one machine; ports that leave 1024-32767
    /// are folded back into it
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,

    /// The net that all addresses are in, inside 127.0.0.0/8; 127.0.0.0/16 stays free
    #[arg(long, value_name = "NET", default_value = "127.0.0.0/8")]
    net: Ipv4Net,

    /// Where its files are written; made if missing
    #[arg(long, value_name = "DIR", default_value = ".simnet")]
    dir: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  bitdash-simnet                        2,000 nodes, 6,000 dead addresses, twenty times as fast as life
  bitdash-simnet --nodes 200 --dead 300 --port-offset 1000 --dir /tmp/net
  bitdash-simnet --time-scale 1         as slow as life
  bitdash-simnet --zoo 1                one of each bad behaviour among them
Nothing leaves the machine: connections that do not come from loopback are dropped.";

#[derive(Clone, Copy)]
enum Trb {
    Number(usize),
    Share(f64),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list_zoo {
        return list_zoo();
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("bitdash-simnet: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn list_zoo() -> ExitCode {
    let mut out = io::stdout().lock();
    for beast in zoo::all() {
        // Whoever reads it need not read on.
        if writeln!(out, "{}: {}", beast.name, beast.statement()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let world = Arc::new(World::generate(&params(arguments))?);
    let dir = arguments.dir.as_path();
    let named = |error: io::Error| format!("cannot write into {}: {error}", dir.display());
    let server = Server::open(world.clone())?;
    // Before `ready`: whoever reads that line may send a signal at once.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    server.registry().register(&mut signals, STOP, Interest::READABLE)?;
    write_world(dir, &world).map_err(named)?;
    println!(
        "ready nodes={} silent={} refusing={} zoo={} dir={}",
        world.nodes().len(),
        report::count_dead(&world, DeadKind::Silent),
        report::count_dead(&world, DeadKind::Refusing),
        world.dens().len(),
        dir.display()
    );
    // Whoever started us need not read on.
    let _ = io::stdout().flush();
    let seen = server.run()?;
    write(&dir.join("report.tsv"), |out| seen.write(out)).map_err(named)?;
    write(&dir.join("connections.tsv"), |out| seen.write_connections(&world, out))
        .map_err(named)?;
    Ok(())
}

fn params(arguments: &Arguments) -> WorldParams {
    let silent = (arguments.dead as f64 * arguments.silent).round() as usize;
    WorldParams {
        seed: arguments.seed,
        nodes: arguments.nodes,
        silent,
        refusing: arguments.dead.saturating_sub(silent),
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
        wall: u32::try_from(Clock::new().now().wall.as_secs()).unwrap_or(u32::MAX),
        time_scale: arguments.time_scale,
        latency: arguments.latency,
        ..WorldParams::default()
    }
}

fn write_world(dir: &Path, world: &World) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for stale in ["report.tsv", "connections.tsv"] {
        match fs::remove_file(dir.join(stale)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    write(&dir.join("nodes.tsv"), |out| report::write_nodes(world, out))?;
    write(&dir.join("zoo.tsv"), |out| report::write_zoo(world, out))?;
    write(&dir.join("dead.tsv"), |out| report::write_dead(world, out))?;
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
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("not between 0 and 1".to_owned()) }
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1000.0).contains(&factor) {
        Ok(factor)
    } else {
        Err("not between 0 and 1000".to_owned())
    }
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
