//! The command line: arguments, help and dispatch to the commands.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::commands::screen::{self, Color, Screen};
use crate::commands::{
    Failure, HostPort, compare, config, crawl, export, import, migrate, nodes, places, poll, print,
    probe, site, status,
};
use crate::config::ConfigSource;

/// Crawls the Bitcoin network and keeps a complete, true map of it in PostgreSQL.
#[derive(Parser, Debug)]
#[command(
    name = "bitdash",
    version = env!("BITDASH_VERSION"),
    styles = STYLES,
    after_help = "Exit status: 0 success, 1 failure while running, 2 invalid usage or configuration.\n\
        \n\
        Examples:\n  \
          bitdash config                    check and print the effective configuration\n  \
          bitdash crawl                     crawl until stopped (Ctrl-C or SIGTERM)\n  \
          bitdash -c test.toml crawl --passes 1\n  \
          bitdash status                    what has been found so far\n  \
          bitdash probe 205.134.172.28      probe a single node now\n  \
          bitdash poll                      probe all nodes of the nodes file\n\
        \n\
        `kill -HUP` makes a running crawl reload its files: max_sockets and most other keys change \
        without a restart."
)]
struct Cli {
    /// The configuration file
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        global = true,
        help = CONFIG_HELP,
        help_heading = GLOBAL,
        value_hint = ValueHint::FilePath
    )]
    config: Option<PathBuf>,
    /// Colours: auto (on a terminal without NO_COLOR), always or never
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        global = true,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true,
        help_heading = GLOBAL
    )]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold())
    .literal(AnsiColor::Green.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const GLOBAL: &str = "Global options";

const CONFIG_HELP: &str = "The configuration file [default: $BITDASH_CONFIG, else ./bitdash.toml, else \
    /etc/bitdash/bitdash.toml]";

#[derive(Subcommand, Debug)]
enum Command {
    /// Crawl, pass after pass, until stopped
    #[command(
        long_about = "Crawls, pass after pass, until stopped: probes every address that is due, and \
            every address discovered meanwhile, once per pass. Creates and upgrades the database \
            schema, and resumes an interrupted pass.\n\n\
            SIGTERM and SIGINT stop it within 10 s, with everything written; SIGHUP reloads its \
            files, or stops it if the terminal that showed its log is gone.",
        after_help = "Examples:\n  \
            bitdash crawl                     until stopped\n  \
            bitdash crawl --passes 1          one sweep of the network, for cron"
    )]
    Crawl {
        /// Exit after N finished passes; the first one starts at once
        #[arg(long, value_name = "N", value_parser = passes, value_hint = ValueHint::Other)]
        passes: Option<u64>,
    },
    /// Probe single nodes now, without a database, and print their replies
    #[command(
        long_about = "Probes nodes now, in parallel, without a database: connects, exchanges version, \
            and prints the outcome, the latencies and every field of the reply. HOST may be a name of \
            the nodes file. All IPv4 addresses of a host name are probed. PORT defaults to \
            network.port (8333). filter.only and filter.exclude apply.\n\n\
            Exit status: 0 all responded, 1 some did not.",
        after_help = "Examples:\n  \
            bitdash probe 205.134.172.28                its version and latency\n  \
            bitdash probe pizarro                       a named node\n  \
            bitdash probe --peers node.example.org      and its peers\n  \
            bitdash probe --trace 205.134.172.28:8333   message by message\n  \
            bitdash probe --json 127.0.0.1 | jq .species\n  \
            bitdash probe --protocol-version 209 --user-agent /old:0.1/ 127.0.0.1\n\
            \n\
            Times are in milliseconds: until the connection (one round trip), and from there to version."
    )]
    Probe {
        /// An IPv4 address, the name of a node or a host name
        #[arg(value_name = "HOST[:PORT]", required = true, value_hint = ValueHint::Hostname)]
        places: Vec<HostPort>,
        #[command(flatten)]
        options: probe::Options,
    },
    /// Probe every node of a list in parallel and print one table, the worst first
    #[command(
        long_about = "Probes every line of a nodes file in parallel, without a database, and prints \
            one table, the worst first: nodes that did not respond, then the lowest height, then the \
            highest latency. The latency is that of the connection: one round trip.\n\n\
            Exit status: 0 all responded, 1 some did not or a line was refused. A full node counts as not \
            responding.",
        after_help = "Examples:\n  \
            bitdash poll                      the lines of crawl.nodes_file\n  \
            bitdash poll mine.txt             a list of your own\n  \
            bitdash poll mine.txt --watch 5m  until Ctrl-C; rereads the file each time\n  \
            bitdash poll mine.txt --json | jq -r 'select(.outcome != \"responded\") | .name'\n\
            \n\
            In a crontab, this mails the table when something is down:\n  \
            */15 * * * *  out=$(bitdash poll mine.txt) || echo \"$out\"\n\
            \n\
            `bitdash probe --trace HOST` shows why a node does not respond."
    )]
    Poll(poll::Options),
    /// Create or upgrade the database schema (crawl does so, too)
    #[command(
        long_about = "Creates or upgrades the database schema, as crawl does when it starts.\n\n\
            With --species it also gives every known node the species and the release of the rules: \
            species.toml beside the configuration file, else the built-in ones. That may be done \
            beside a crawl, after SIGHUP made it read the same rules; otherwise a node gets them when \
            it next responds. The history keeps the old words, and history_notes says what changed.",
        after_help = "Examples:\n  \
            bitdash migrate\n  \
            bitdash migrate --species         after species.toml was changed"
    )]
    Migrate {
        /// Apply the rules of species to all known nodes
        #[arg(long)]
        species: bool,
    },
    /// Show the crawl and its map on one screen, or everything known of an address
    #[command(
        long_about = "Shows whether a crawl is running and how far it is, the nodes by species, what \
            changed, and the TRB and named nodes that are not up. With addresses or names, \
            everything known of them, why they are or are not listed, and when they are tried \
            next.\n\n\
            Exit status: 1 if an address is unknown.",
        after_help = "Examples:\n  \
            bitdash status\n  \
            bitdash status 205.134.172.28     one host, on every known port\n  \
            bitdash status pizarro            a named node, or a host name\n  \
            bitdash status --json | jq .species"
    )]
    Status {
        /// An address (without PORT: every port), the name of a node, or a host name
        #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
        places: Vec<HostPort>,
        /// Print JSON instead of tables
        #[arg(long)]
        json: bool,
    },
    /// List nodes, one a line, with filters
    #[command(
        long_about = "Lists the nodes of the database, one a line, as a table, JSON or CSV. A node is \
            listed if it matches every filter. JSON and CSV have all columns of the relation nodes.",
        after_help = "Examples:\n  \
            bitdash nodes --species TRB --status up\n  \
            bitdash nodes --agent knots --sort height --limit 20\n  \
            bitdash nodes --since 1h --sort first-seen\n  \
            bitdash nodes --json | jq -r 'select(.connect_ms > 500) | .host'\n  \
            bitdash nodes --csv > nodes.csv"
    )]
    Nodes(nodes::Options),
    /// Write the nodes in a format that other programs read
    #[command(
        long_about = "Writes the nodes of the database in a format that other programs read: json \
            (snapshot of Bitnodes), csv, seeds (dump of bitcoin-seeder, which makeseeds.py reads) or \
            uainfo (number of nodes by user agent). A file is replaced as a whole, or stays as it is.",
        after_help = "Examples:\n  \
            bitdash export json --out snapshot.json\n  \
            bitdash export json --layout rows | jq length\n  \
            bitdash export json --at '2026-11-28 12:53' --out then.json\n  \
            bitdash export csv > nodes.csv\n  \
            bitdash export seeds | awk '$2 == 1'"
    )]
    Export(export::Options),
    /// Compare a list of nodes from elsewhere with the map, and explain each difference
    #[command(
        long_about = "Reads a list of nodes from elsewhere and says which of them are up here, and why \
            the others are not: full, down, never answered, excluded or never heard of. Reads what \
            import reads.\n\n\
            Exit status: 1 if a part of the list is unreadable.",
        after_help = "Examples:\n  \
            bitdash compare 1777339673.json   a snapshot of Bitnodes\n  \
            bitdash compare nodes.csv.gz --list unheard > missing.txt\n  \
            bitdash compare - --json < seeds_main.txt | jq .only_theirs"
    )]
    Compare(compare::Options),
    /// Take the addresses of a list in as candidates
    #[command(
        long_about = "Reads a list of nodes from elsewhere and stores its IPv4 addresses as candidates, \
            whether a crawl is running or not: a running one takes them in within seconds. Known \
            nodes and candidates stay as they are. A list is a snapshot of Bitnodes (JSON), CSV with \
            host and port, a dump of bitcoin-seeder or HOST [PORT] or HOST:PORT per line, also \
            compressed with gzip; its content tells which. Host names are not resolved. filter.* and \
            the built-in special-purpose ranges apply.\n\n\
            Exit status: 1 if a part of the list is unreadable; the rest is imported then.",
        after_help = "Examples:\n  \
            bitdash import 1777339673.json.gz\n  \
            bitdash import seeds_main.txt\n  \
            grep -v bad old.txt | bitdash import -"
    )]
    Import {
        /// The list; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Look the nodes' countries and networks up (crawl does so after each pass)
    #[command(
        long_about = "Looks the nodes' countries and networks up in the files geo.country_db and \
            geo.asn_db: those of nodes without them, or of all nodes if a file has changed. crawl \
            runs this after each pass; run it yourself to see what it says, or after a change of \
            these keys.\n\n\
            Exit status: 1 if files are configured and none can be used.",
        after_help = "Examples:\n  \
            bitdash places\n  \
            bitdash nodes --country DE --status up"
    )]
    Places,
    /// Write the website: static files for any web server
    #[command(
        long_about = "Writes the website from the database: static files that any web server can hand \
            out. A file is replaced as a whole; files that are no longer part of the website are \
            removed last, and files of others are never touched. With site.dir in the configuration \
            the crawler does it after each pass.",
        after_help = "Examples:\n  \
            bitdash site                      into site.dir\n  \
            bitdash site --out /tmp/site && python3 -m http.server -d /tmp/site --bind 127.0.0.1"
    )]
    Site(site::Options),
    /// Print the completions of a shell
    #[command(after_help = "Examples:\n  \
            bitdash completions bash > /etc/bash_completion.d/bitdash\n  \
            bitdash completions fish > ~/.config/fish/completions/bitdash.fish")]
    Completions {
        /// The shell: bash, zsh or fish
        #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
    /// Print the effective configuration, secrets masked; exit status 2 if it is invalid
    #[command(
        long_about = "Checks the configuration, the exclude files and the nodes file, and prints every \
            effective key as a valid configuration file. The database password is masked. Connects to \
            nothing.",
        after_help = "Examples:\n  \
            bitdash config                    check and print\n  \
            bitdash config > bitdash.toml.new && grep -n max_sockets bitdash.toml.new"
    )]
    Config,
}

/// The definition of the command line, for man pages and completions.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command given by the arguments; the first one is the program's name.
///
/// # Errors
/// Invalid usage, an invalid configuration, or a failed command.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return answer(&error, &command_in(&arguments)),
    };
    let source = ConfigSource::new(cli.config);
    screen::set_color(cli.color);
    let screen = Screen::of_stdout();
    match cli.command {
        Command::Crawl { passes } => crawl::run(&source, passes),
        Command::Probe { places, options } => probe::run(&source, places, &options, &screen),
        Command::Poll(options) => poll::run(&source, &options, &screen),
        Command::Migrate { species } => migrate::run(&source, species),
        Command::Status { places, json } => status::run(&source, &places, json, &screen),
        Command::Nodes(options) => nodes::run(&source, &options, &screen),
        Command::Export(options) => export::run(&source, &options),
        Command::Compare(options) => compare::run(&source, &options, &screen),
        Command::Import { file } => import::run(&source, &file, &screen),
        Command::Places => places::run(&source),
        Command::Site(options) => site::run(&source, &options),
        Command::Completions { shell } => completions(&shell),
        Command::Config => config::run(&source),
    }
}

fn completions(shell: &str) -> Result<(), Failure> {
    let shell: Shell = shell.parse().map_err(Failure::Usage)?;
    print(&completion_script(shell))
}

/// The completions of a shell.
pub fn completion_script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "bitdash", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Fish {
        // clap_complete leaves out the values of arguments that are no options.
        for command in definition().get_subcommands() {
            let values = command.get_positionals().flat_map(clap::Arg::get_possible_values);
            let values: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
            if !values.is_empty() {
                let (name, values) = (command.get_name(), values.join(" "));
                script += &format!(
                    "complete -c bitdash -n \"__fish_bitdash_using_subcommand {name}\" -f -a \"{values}\"\n"
                );
            }
        }
    }
    script
}

/// Help and version go to stdout; an error becomes one line.
fn answer(error: &clap::Error, command: &str) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(&rendered(error)),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(Failure::Usage(format!(
            "no command given\n\n{}",
            error.render().to_string().trim_end()
        ))),
        _ => Err(Failure::Usage(format!("{}; see {command} --help", one_line(error)))),
    }
}

/// Help has colours where standard output has them.
fn rendered(error: &clap::Error) -> String {
    let text = error.render();
    if Screen::of_stdout().is_colored { text.ansi().to_string() } else { text.to_string() }
}

/// clap's error message without usage, hint and brackets.
fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let message = rendered.split("\n\nUsage:").next().unwrap_or(&rendered);
    let message = message.split("\n\nFor more information").next().unwrap_or(message);
    let paragraphs = message.split("\n\n").map(|paragraph| {
        let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        line.trim_start_matches("error: ").trim_start_matches("tip: ").to_owned()
    });
    let mut line = paragraphs.collect::<Vec<_>>().join("; ");
    let arguments = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => std::slice::from_ref(argument),
        Some(ContextValue::Strings(arguments)) => arguments,
        _ => &[],
    };
    for argument in arguments {
        line = line.replace(argument, &without_brackets(argument));
    }
    line
}

/// An argument as a person writes it: `--passes N` for `--passes <N>`, `HOST[:PORT]` for
/// `[HOST[:PORT]]...`.
fn without_brackets(argument: &str) -> String {
    let argument = argument.trim_end_matches("...").replace(['<', '>'], "");
    let inner = argument.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(&argument).to_owned()
}

/// The command that is called, whose help explains an error.
fn command_in(arguments: &[OsString]) -> String {
    let definition = definition();
    let is_value = |index: usize| {
        let before = index.checked_sub(1).and_then(|before| arguments[before].to_str());
        matches!(before, Some("-c" | "--config" | "--color"))
    };
    let words = arguments.iter().enumerate().skip(1).filter(|(index, _)| !is_value(*index));
    let names = words.filter_map(|(_, word)| word.to_str());
    match names.into_iter().find(|name| definition.find_subcommand(name).is_some()) {
        Some(name) => format!("bitdash {name}"),
        None => "bitdash".to_owned(),
    }
}

fn passes(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_PASSES).contains(number));
    number.ok_or_else(|| format!("must be a whole number from 1 to {MAX_PASSES}"))
}

const MAX_PASSES: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn refused(line: &str) -> String {
        match run(arguments(line)) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_passes_claps_own_checks() {
        definition().debug_assert();
    }

    #[test]
    fn commands_and_options_are_accepted_in_any_order() {
        for line in
            ["bitdash -c x.toml crawl --passes 3", "bitdash crawl --passes 3 --config x.toml"]
        {
            let cli = Cli::try_parse_from(arguments(line)).unwrap();
            assert_eq!(cli.config, Some(PathBuf::from("x.toml")));
            assert!(matches!(cli.command, Command::Crawl { passes: Some(3) }), "{line}");
        }
        let cli = Cli::try_parse_from(arguments("bitdash status 10.0.0.1:8333 --json")).unwrap();
        let Command::Status { places, json: true } = cli.command else {
            panic!("{:?}", cli.command)
        };
        assert_eq!(places, ["10.0.0.1:8333".parse().unwrap()]);
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let whole = "must be a whole number from 1 to";
        let table = [
            (
                "bitdash crawl --passes 0",
                format!("invalid value '0' for '--passes N': {whole} 1000000000"),
                "bitdash crawl",
            ),
            (
                "bitdash status 10.0.0.1:70000",
                format!("invalid value '10.0.0.1:70000' for 'HOST[:PORT]': its port {whole} 65535"),
                "bitdash status",
            ),
            (
                "bitdash crwal",
                "unrecognized subcommand 'crwal'; a similar subcommand exists: 'crawl'".to_owned(),
                "bitdash",
            ),
            (
                "bitdash config --json",
                "unexpected argument '--json' found".to_owned(),
                "bitdash config",
            ),
        ];
        for (line, text, command) in table {
            assert_eq!(refused(line), format!("{text}; see {command} --help"), "{line}");
        }
        assert!(refused("bitdash").starts_with("no command given\n\nCrawls the Bitcoin network"));
    }
}
