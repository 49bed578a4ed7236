//! The nodes file during a crawl: named nodes and seeds, resolved off the event loop's thread.
//!
//! Seeds are resolved only on request: a crawl that knows nodes queries no DNS seed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use mio::Waker;

use crate::net::nodes_file::{Line, NodesFile, NodesFileError};
use crate::net::resolve::{RESOLVE_TIMEOUT, Resolved, admitted, resolve};
use bitdash_core::record::messages::Names;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;

/// The lines of the nodes file and the lookups in flight.
pub struct NameBook {
    lines: Vec<Line>,
    /// Last successful answer for each name, so that a short DNS outage removes no named node from
    /// a pass.
    last_good: BTreeMap<(String, u16), Vec<Address>>,
    sender: Sender<Vec<Resolved>>,
    receiver: Receiver<Vec<Resolved>>,
    waker: Arc<Waker>,
}

impl NameBook {
    /// Reads the nodes file and logs its invalid lines.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(
        path: &Path,
        port: u16,
        filter: &Filter,
        waker: Arc<Waker>,
    ) -> Result<Self, NodesFileError> {
        let (sender, receiver) = mpsc::channel();
        let last_good = BTreeMap::new();
        let mut book = Self { lines: Vec::new(), last_good, sender, receiver, waker };
        book.replace(NodesFile::read(path, port)?, filter);
        Ok(book)
    }

    /// Replaces the lines and logs the invalid and the excluded ones. Returns the change, if any,
    /// for the log.
    pub fn replace(&mut self, file: NodesFile, filter: &Filter) -> Option<String> {
        for complaint in &file.complaints {
            log::warn!("nodes_file error=\"{complaint}\"");
        }
        let before = std::mem::replace(&mut self.lines, file.lines);
        self.lines.retain(|line| match line.address().map(|address| filter.check_named(address)) {
            Some(Err(why)) => {
                log::warn!("nodes_file line={} error=\"{} is {why}\"", line.number, line.host);
                false
            }
            _ => true,
        });
        let text = || format!("nodes_file_lines={}->{}", before.len(), self.lines.len());
        (before != self.lines).then(text)
    }

    /// Starts a lookup; the waker wakes the event loop when [`NameBook::receive`] has the answer.
    pub fn look_up(&self, wants_seeds: bool) {
        let wanted = |line: &&Line| wants_seeds || line.name.is_some();
        let lines = self.lines.iter().filter(wanted).cloned().collect();
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        resolve(lines, RESOLVE_TIMEOUT, move |resolved| {
            // The receiver is gone only when the process is exiting.
            if sender.send(resolved).is_ok() {
                let _ = waker.wake();
            }
        });
    }

    /// Returns the answer of a lookup that has finished.
    pub fn receive(&mut self, filter: &Filter) -> Option<Names> {
        let resolved = self.receiver.try_recv().ok()?;
        let mut names = Names::default();
        for Resolved { line, addresses } in resolved {
            let key = (line.host.to_string(), line.port);
            let admit = |found| admitted(&line, found, line.name.is_some(), filter);
            let addresses = match admit(addresses) {
                Ok(found) => Ok(self.last_good.entry(key).insert_entry(found).get().clone()),
                Err(why) => match self.last_good.get(&key).map(|old| admit(Ok(old.clone()))) {
                    Some(Ok(old)) => {
                        log::warn!(
                            "nodes_file line={} uses=last_answer error=\"{why}\"",
                            line.number
                        );
                        Ok(old)
                    }
                    _ => Err(why),
                },
            };
            match (addresses, line.name) {
                (Err(why), name) => {
                    names.is_partial = true;
                    names.unresolved.extend(name);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_is_checked_again_after_a_reload() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nodes.txt");
        std::fs::write(&path, "friend.example 8333 Friend\n").unwrap();
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let open = Filter::new(&[], &[]);
        let mut book = NameBook::read(&path, 8333, &open, waker).unwrap();
        let line = book.lines[0].clone();
        let mut receive = |addresses, filter: &Filter| {
            book.sender.send(vec![Resolved { line: line.clone(), addresses }]).unwrap();
            book.receive(filter).unwrap().named.len()
        };
        let away = || Err("friend.example: no answer within 30 s".to_owned());
        assert_eq!(receive(Ok(vec![Address::new([8, 8, 8, 8].into(), 8333)]), &open), 1);
        assert_eq!(receive(away(), &open), 1, "the last answer");
        let excluding = Filter::new(&["8.8.8.0/24".parse().unwrap()], &[]);
        assert_eq!(receive(away(), &excluding), 0);
        assert_eq!(receive(away(), &open), 1);
    }
}
