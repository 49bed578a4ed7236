//! Generates the man pages and shell completions of `bitdash` from the definition of its command
//! line: `cargo run --example manual -- DIRECTORY`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, io};

use bitdash::cli;
use clap::Command;
use clap::builder::Resettable;
use clap_complete::Shell;
use clap_mangen::Man;

/// The section FILES, which applies to the package only.
const FILES: &str = "\
.SH FILES
.TP
.I /etc/bitdash/bitdash.toml
the configuration of the service; to use it with a command: \\fBbitdash \\-c /etc/bitdash/bitdash.toml status\\fR
.TP
.I /etc/bitdash/nodes.txt
seeds and named nodes
.TP
.I /var/log/bitdash/bitdash.log
the log of the service
.TP
.I /usr/share/doc/bitdash/README.md
the handbook: tuning, database, security, backup
";

fn main() -> io::Result<()> {
    let directory = PathBuf::from(env::args_os().nth(1).expect("usage: manual DIRECTORY"));
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    // One page per command; `bitdash help` needs none.
    let mut definition = cli::definition().disable_help_subcommand(true);
    definition.build();
    for command in definition.get_subcommands() {
        write_page(command, &pages, "")?;
    }
    write_page(&definition, &pages, FILES)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli::definition(), "bitdash", &directory)?;
    }
    Ok(())
}

/// Writes a command's page. The text after its help keeps its lines and columns.
fn write_page(command: &Command, directory: &Path, files: &str) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let command = command.clone().after_help(Resettable::Reset);
    let mut page = File::create(directory.join(format!("{name}.1")))?;
    let source = concat!("bitdash ", env!("CARGO_PKG_VERSION"));
    Man::new(command).title(name).source(source).render(&mut page)?;
    let notes: Vec<String> = notes.lines().map(escaped).collect();
    write!(page, ".SH NOTES\n.nf\n{}\n.fi\n{files}", notes.join("\n"))
}

/// Escapes a line for roff.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}
