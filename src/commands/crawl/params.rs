//! From the configuration to what each machine goes by.
//!
//! Layer 4. Pure; the only place that knows which key goes where.

use std::sync::Arc;

use crate::crawl::book::BookParams;
use crate::crawl::crawler::CrawlerParams;
use crate::crawl::filter::Filter;
use crate::crawl::probe::ProbeParams;
use crate::crawl::recorder::RecorderParams;
use crate::crawl::time::UnixTime;
use crate::io::config::Config;
use crate::io::writer::thread::WriterSettings;
use crate::watchglass::Magic;

/// What all machines of a crawl go by.
#[derive(Clone, Debug)]
pub struct Params {
    /// The crawler's part.
    pub crawler: CrawlerParams,
    /// The recorder's part.
    pub recorder: RecorderParams,
    /// The probes' part.
    pub probe: Arc<ProbeParams>,
    /// The writer's part.
    pub writer: WriterSettings,
}

impl Params {
    /// Deals out the configuration. `max_sockets` is what the system has room for, at most the configured.
    pub fn new(config: &Config, filter: Filter, max_sockets: usize) -> Self {
        let filter = Arc::new(filter);
        Self {
            crawler: CrawlerParams {
                max_sockets,
                connects_per_second: config.crawl.connects_per_second,
                pass_interval: config.crawl.pass_interval,
                spam_share: config.crawl.spam_share,
                filter: Arc::clone(&filter),
                built_at: UnixTime::default(),
            },
            recorder: RecorderParams {
                book: BookParams {
                    backoff: config.backoff,
                    getaddr_interval: config.crawl.getaddr_interval,
                    max_addresses: config.crawl.max_addresses as usize,
                },
                filter,
            },
            probe: Arc::new(probe_params(config)),
            writer: WriterSettings {
                results_per_node: config.crawl.results_per_node,
                batch_rows: config.database.batch_rows as usize,
                flush_interval: config.database.flush_interval,
            },
        }
    }
}

/// What a probe goes by.
pub fn probe_params(config: &Config) -> ProbeParams {
    ProbeParams {
        magic: Magic(config.network.magic),
        protocol_version: config.network.protocol_version,
        services: config.network.services,
        user_agent: config.sent_user_agent().into_bytes(),
        connect_timeout: config.crawl.connect_timeout,
        candidate_connect_timeout: config.crawl.candidate_connect_timeout,
        handshake_timeout: config.crawl.handshake_timeout,
        addr_timeout: config.crawl.addr_timeout,
        addr_quiet: config.crawl.addr_quiet,
    }
}
