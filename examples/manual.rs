//! Writes the man pages and the shell completions of `bitdash`, out of the definition of its command
//! line, into a folder: `cargo run --example manual -- FOLDER`. Nothing of it is in the binary.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, io};

use bitdash::commands::cli;
use clap::Command;
use clap::builder::Resettable;
use clap_complete::Shell;
use clap_mangen::Man;

/// What only the package has.
const FILES: &str = "\
.SH FILES
.TP
.I /etc/bitdash/bitdash.toml
the configuration of the service; for a command by hand: \\fBbitdash \\-c /etc/bitdash/bitdash.toml status\\fR
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
    let folder = PathBuf::from(env::args_os().nth(1).expect("the folder to write into"));
    let pages = folder.join("man");
    fs::create_dir_all(&pages)?;
    // A page of its own for each command; `bitdash help` says nothing that these do not.
    let mut definition = cli::definition().disable_help_subcommand(true);
    definition.build();
    for command in definition.get_subcommands() {
        write_page(command, &pages, "")?;
    }
    write_page(&definition, &pages, FILES)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli::definition(), "bitdash", &folder)?;
    }
    Ok(())
}

/// A command's page. What stands after its help is set in lines and columns, and keeps them.
fn write_page(command: &Command, folder: &Path, files: &str) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let command = command.clone().after_help(Resettable::Reset);
    let mut page = File::create(folder.join(format!("{name}.1")))?;
    let source = concat!("bitdash ", env!("CARGO_PKG_VERSION"));
    Man::new(command).title(name).source(source).render(&mut page)?;
    let notes: Vec<String> = notes.lines().map(escaped).collect();
    write!(page, ".SH NOTES\n.nf\n{}\n.fi\n{files}", notes.join("\n"))
}

/// A line as it is: no command of the formatter begins it.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}
