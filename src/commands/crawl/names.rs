//! The nodes file during a crawl: named nodes and seeds, looked up off the loop's thread.
//!
//! Layer 4. Names of seeds are looked up only when seeds are wanted: a crawl that knows nodes asks no DNS seed.

use std::collections::BTreeMap;
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
    /// What each name's look-up gave when it last gave something: a name service that is away for a moment
    /// takes no named node out of a pass.
    last_good: BTreeMap<(String, u16), Vec<Address>>,
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
        let last_good = BTreeMap::new();
        let mut book = Self { lines: Vec::new(), last_good, sender, receiver, waker };
        book.replace(NodesFile::read(path, port)?);
        Ok(book)
    }

    /// Takes another nodes file, and logs what is wrong with single lines.
    pub fn replace(&mut self, file: NodesFile) {
        for complaint in &file.complaints {
            log::warn!("nodes_file error=\"{complaint}\"");
        }
        self.lines = file.lines;
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
    pub fn receive(&mut self) -> Option<Names> {
        let resolved = self.receiver.try_recv().ok()?;
        let mut names = Names { named: Vec::new(), seeds: Vec::new(), is_partial: false };
        for Resolved { line, addresses } in resolved {
            let key = (line.host.to_string(), line.port);
            let addresses = match addresses {
                Ok(found) => Ok(self.last_good.entry(key).insert_entry(found).get().clone()),
                Err(why) => match self.last_good.get(&key) {
                    Some(old) => {
                        log::warn!(
                            "nodes_file line={} uses=last_answer error=\"{why}\"",
                            line.number
                        );
                        Ok(old.clone())
                    }
                    None => Err(why),
                },
            };
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
