//! Generates the man pages and shell completions of `bitdash` from the definition of its command
//! line: `cargo run --example manual -- DIRECTORY`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, io};

use bitdash::cli;
use bitdash::config::{KEYS, Reload};
use clap::Command;
use clap::builder::Resettable;
use clap_complete::{Generator, Shell};
use clap_mangen::Man;

/// The sections of bitdash(1) that clap does not know.
const SECTIONS: &str = r"
.SH EXIT STATUS
.TP
0
done
.TP
1
a failure while running, or the answer is no: a node is down, an address is unknown, a line was refused
.TP
2
wrong usage or configuration; each fault is one line on standard error
.SH ENVIRONMENT
.TP
BITDASH_CONFIG
the configuration file, unless \-c names one
.TP
BITDASH_DATABASE_URL
overrides database.url
.TP
PGHOST, PGPORT, PGUSER, PGPASSWORD, PGPASSFILE
as for psql, where database.url leaves them out
.TP
NO_COLOR, TERM
no colours if NO_COLOR is set or TERM is dumb; see \-\-color
.SH SIGNALS
.TP
SIGHUP
crawl reloads its configuration, nodes file, species.toml and exclude files and reopens its log; poll \-\-watch reloads and polls at once
.TP
SIGTERM, SIGINT
crawl writes what is pending and exits within 10 seconds
.SH FILES
.TP
.I ./bitdash.toml, /etc/bitdash/bitdash.toml
the configuration: the first one that exists; see bitdash.toml(5)
.TP
.I /etc/bitdash/nodes.txt
seeds and named nodes of the service
.TP
.I species.toml
beside the configuration: rules of species that replace the built-in ones, which are in
.I /usr/share/bitdash/species.toml
.TP
.I /var/log/bitdash/bitdash.log
the log of the service
.TP
.I /run/bitdash/site
a good place for the website: see site.dir in bitdash.toml(5)
.TP
.I /usr/share/libloc-location/location.db, /var/lib/location/database.db, /usr/share/GeoIP/*.mmdb
countries and networks: see geo.country_db in bitdash.toml(5)
.TP
.I ~/.pgpass
passwords of databases, as for psql
.TP
.I /usr/share/doc/bitdash/README.md
the handbook: tuning, database, security, backup
.SH SEE ALSO
.BR bitdash.toml (5),
.BR psql (1)
";

fn main() -> io::Result<()> {
    let directory = PathBuf::from(env::args_os().nth(1).expect("usage: manual DIRECTORY"));
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    // One page per command; `bitdash help` needs none.
    let mut definition = cli::definition().disable_help_subcommand(true);
    definition.build();
    for command in definition.get_subcommands() {
        write_page(command, &pages, ".SH SEE ALSO\n.BR bitdash (1),\n.BR bitdash.toml (5)\n")?;
    }
    write_page(&definition, &pages, SECTIONS)?;
    fs::write(pages.join("bitdash.toml.5"), configuration_page())?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        fs::write(directory.join(shell.file_name("bitdash")), cli::completion_script(shell))?;
    }
    Ok(())
}

/// Writes a command's page. The text after its help keeps its lines and columns.
fn write_page(command: &Command, directory: &Path, sections: &str) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let command = command.clone().after_help(Resettable::Reset);
    let mut page = File::create(directory.join(format!("{name}.1")))?;
    Man::new(command).title(name).source(SOURCE).render(&mut page)?;
    let notes: Vec<String> = notes.trim_start_matches("Examples:\n").lines().map(escaped).collect();
    if !notes.is_empty() {
        write!(page, ".SH EXAMPLES\n.nf\n{}\n.fi\n", notes.join("\n"))?;
    }
    page.write_all(sections.trim_start().as_bytes())
}

/// bitdash.toml(5), from the table of keys.
fn configuration_page() -> String {
    let mut page = format!(
        ".TH bitdash.toml 5 \"\" \"{SOURCE}\" \"\"\n.SH NAME\nbitdash.toml \\- configuration of bitdash(1)\n\
         .SH DESCRIPTION\nEvery key has a default, so an empty file works; an unknown key is an error. Durations are \
         strings with a unit, such as \"500ms\", \"3s\", \"10m\", \"24h\" or \"14d\". Relative paths are resolved against \
         the directory of the file. On SIGHUP a running crawl reloads the file.\n"
    );
    for section in KEYS.chunk_by(|a, b| a.section == b.section) {
        page += &format!(".SH [{}]\n", section[0].section);
        for group in section.chunk_by(|_, next| next.text.is_empty()) {
            for (index, key) in group.iter().enumerate() {
                let tag = if index == 0 { ".TP" } else { ".TQ" };
                let default = format!("{} = {}", key.field, key.default);
                page += &format!("{tag}\n\\fB{}\\fR\n", escaped(&default));
            }
            for line in group[0].text {
                page += &format!("{}\n", escaped(line.trim()));
            }
            let restarts =
                if group[0].reload == Reload::AtStart { " Needs a restart." } else { "" };
            page += &format!("Allowed: {}.{restarts}\n", escaped(&(group[0].allowed)()));
        }
    }
    page + ".SH SEE ALSO\n.BR bitdash (1)\n"
}

const SOURCE: &str = concat!("bitdash ", env!("CARGO_PKG_VERSION"));

/// Escapes a line for roff.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}
