//! Settings of each machine, from the configuration: the only place that maps keys to machines.

use std::sync::Arc;

use crate::config::Config;
use bitdash_core::book::BookParams;
use bitdash_core::book::rank::RankingParams;
use bitdash_core::lookup::species::Rules;
use bitdash_core::probe::ProbeParams;
use bitdash_core::record::messages::WriterParams;
use bitdash_core::record::recorder::{MAX_PENDING_ROWS, RecorderParams};
use bitdash_core::schedule::crawler::CrawlerParams;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::time::UnixTime;
use watchglass::Magic;

/// Settings of all machines of a crawl.
#[derive(Clone, Debug)]
pub struct Params {
    /// Settings of the crawler.
    pub crawler: CrawlerParams,
    /// Settings of every probe.
    pub probe: Arc<ProbeParams>,
    /// Settings of the writer.
    pub writer: WriterParams,
}

impl Params {
    /// Distributes the configuration and the rules of species. `max_sockets` is the configured
    /// number, or less if the limit of open files is lower.
    pub fn new(config: &Config, filter: Filter, rules: Arc<Rules>, max_sockets: usize) -> Self {
        let filter = Arc::new(filter);
        Self {
            crawler: CrawlerParams {
                max_sockets,
                connects_per_second: config.crawl.connects_per_second,
                pass_interval: config.crawl.pass_interval,
                spam_share: config.crawl.spam_share,
                ask_share: config.crawl.ask_share as usize,
                learns_patience: true,
                filter: Arc::clone(&filter),
                built_at: UnixTime::default(),
            },
            probe: Arc::new(probe_params(config)),
            writer: WriterParams {
                recorder: RecorderParams {
                    book: BookParams {
                        backoff: config.backoff,
                        getaddr_interval: config.crawl.getaddr_interval,
                        max_addresses: config.crawl.max_addresses as usize,
                        ranking: RankingParams::default(),
                    },
                    filter,
                    rules,
                },
                results_per_node: config.crawl.results_per_node,
                batch_rows: config.database.batch_rows as usize,
                flush_interval: config.database.flush_interval,
                max_pending_rows: MAX_PENDING_ROWS,
                events_exec: config.events.exec.clone(),
            },
        }
    }
}

/// Settings of a probe.
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
