//! The nodes file during a crawl: named nodes and seeds, looked up off the loop's thread.
//!
//! Layer 4. Names of seeds are looked up only when seeds are wanted: a crawl that knows nodes asks no DNS seed.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use mio::Waker;

use crate::crawl::address::Address;
use crate::io::nodes_file::{Line, NodesFile, NodesFileError};
use crate::io::resolve::{PATIENCE, Resolved, resolve};

/// What a look-up gave.
pub struct Names {
    /// The named nodes.
    pub named: Vec<(Address, String)>,
    /// All other addresses of the file; empty if no seeds were wanted.
    pub seeds: Vec<Address>,
    /// Whether some names gave no address.
    pub is_partial: bool,
}

/// The lines of the nodes file and the look-ups under way.
pub struct NameBook {
    lines: Vec<Line>,
    sender: Sender<Vec<Resolved>>,
    receiver: Receiver<Vec<Resolved>>,
    waker: Arc<Waker>,
}

impl NameBook {
    /// Reads the nodes file and logs what is wrong with single lines.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn read(path: &Path, port: u16, waker: Arc<Waker>) -> Result<Self, NodesFileError> {
        let (sender, receiver) = mpsc::channel();
        let mut book = Self { lines: Vec::new(), sender, receiver, waker };
        book.reread(path, port)?;
        Ok(book)
    }

    /// Reads the file again; where that fails the old lines stay.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn reread(&mut self, path: &Path, port: u16) -> Result<(), NodesFileError> {
        let file = NodesFile::read(path, port)?;
        for complaint in &file.complaints {
            log::warn!("nodes_file error=\"{complaint}\"");
        }
        self.lines = file.lines;
        Ok(())
    }

    /// Begins a look-up; [`NameBook::receive`] has the answer when the waker has woken the loop.
    pub fn look_up(&self, wants_seeds: bool) {
        let wanted = |line: &&Line| wants_seeds || line.name.is_some();
        let lines = self.lines.iter().filter(wanted).cloned().collect();
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        resolve(lines, PATIENCE, move |resolved| {
            // Where nobody listens any more the process is on its way out.
            if sender.send(resolved).is_ok() {
                let _ = waker.wake();
            }
        });
    }

    /// The answer, once it is there.
    pub fn receive(&self) -> Option<Names> {
        let resolved = self.receiver.try_recv().ok()?;
        let mut names = Names { named: Vec::new(), seeds: Vec::new(), is_partial: false };
        for Resolved { line, addresses } in resolved {
            match (addresses, line.name) {
                (Err(why), _) => {
                    names.is_partial = true;
                    log::warn!("nodes_file line={} error=\"{why}\"", line.number);
                }
                (Ok(addresses), None) => names.seeds.extend(addresses),
                (Ok(addresses), Some(name)) => {
                    names.named.extend(addresses.into_iter().map(|a| (a, name.clone())));
                }
            }
        }
        Some(names)
    }
}
