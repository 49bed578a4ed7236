//! Writes the man pages and the shell completions of `bitdash`, out of the definition of its command
//! line, into a folder: `cargo run --example manual -- FOLDER`. Nothing of it is in the binary.

use std::path::PathBuf;
use std::{env, fs, io};

use bitdash::commands::cli;
use clap_complete::Shell;

fn main() -> io::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).expect("the folder to write into"));
    let pages = folder.join("man");
    fs::create_dir_all(&pages)?;
    // A page of its own for each command; `bitdash help` says nothing that these do not.
    clap_mangen::generate_to(cli::definition().disable_help_subcommand(true), &pages)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli::definition(), "bitdash", &folder)?;
    }
    Ok(())
}
