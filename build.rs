//! Lists the files of `sql/` for `db::schema`, and sets `BITDASH_BUILT_AT`, since a wall clock behind
//! the build time is wrong (see `sys::clock`), and `BITDASH_VERSION`, which names the commit.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

#[allow(clippy::disallowed_methods)] // runs at build time
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=sql");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // The convention of reproducible builds.
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let built_at = given.unwrap_or_else(|| now.map_or(0, |since| since.as_secs()));
    println!("cargo::rustc-env=BITDASH_BUILT_AT={built_at}");
    println!("cargo::rustc-env=BITDASH_VERSION={}", version());
    list_migrations().expect("sql/ is readable and OUT_DIR is writable");
}

/// The version with commit and date; without git or outside a repository the version alone.
fn version() -> String {
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo sets CARGO_PKG_VERSION");
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    match git(&["log", "-1", "--format=%h %cs"]) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}

/// Writes a `Migration` for each `NNN_NAME.sql`, in order.
fn list_migrations() -> std::io::Result<()> {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let mut files: Vec<_> = std::fs::read_dir(Path::new(&root).join("sql"))?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| path.as_ref().map_or(true, |path| path.extension() == Some("sql".as_ref())))
        .collect::<std::io::Result<_>>()?;
    files.sort();
    let mut list = "&[".to_owned();
    for path in files {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name.split('_').next().unwrap_or_default().trim_start_matches('0');
        let _ = writeln!(
            list,
            "Migration {{ version: {digits}, name: {name:?}, sql: include_str!({path:?}) }},"
        );
    }
    list.push(']');
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("migrations.rs"), list)
}
