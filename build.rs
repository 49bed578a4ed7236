//! Tells the program when it was built: a calendar that shows less is wrong (see `io::clock`).

#[allow(clippy::disallowed_methods)] // runs on the machine that builds
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // The convention of builds that can be repeated bit by bit.
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let built_at = given.unwrap_or_else(|| now.map_or(0, |since| since.as_secs()));
    println!("cargo::rustc-env=BITDASH_BUILT_AT={built_at}");
}
