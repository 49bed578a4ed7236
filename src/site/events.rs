//! The page of events, and the Atom feed.

use askama::Template;

use crate::db::site::SiteEvent;
use crate::site::frame::{Context, Frame, rendered};
use crate::site::nodes::slug;
use crate::site::text::{day_and_month, hour, month, year};
use crate::site::writer::{Directory, WriteError};

/// An event as a person reads it.
pub struct Event {
    pub id: i64,
    pub iso: String,
    pub short: String,
    pub kind: String,
    pub who: String,
    /// Empty if the node has no page.
    pub slug: String,
    pub text: String,
}

fn word(value: Option<&str>) -> &str {
    match value {
        None => "none",
        Some("") => "(empty)",
        Some(text) => text,
    }
}

/// The words of an event.
pub fn shown(context: &Context, event: &SiteEvent) -> Event {
    let at = event.at.0.as_secs();
    let address = event.address.map(|(host, port)| format!("{host}:{port}"));
    let has_page = context
        .watched
        .iter()
        .any(|node| event.address == Some((node.facts.host, node.facts.port)));
    let before = word(event.before.as_deref());
    let after = word(event.after.as_deref());
    let text = match event.kind.as_str() {
        "new" => "answered for the first time".to_owned(),
        "lost" => "no longer answers".to_owned(),
        "back" if before == "full" => "has room again".to_owned(),
        "back" => "answers again".to_owned(),
        "full" => "accepts connections and closes them".to_owned(),
        "agent" | "species" => format!("{before} → {after}"),
        _ => format!("{after} more in this pass"),
    };
    let who = event.name.clone().or_else(|| address.clone());
    Event {
        id: event.id,
        iso: event.at.to_text(),
        short: format!("{} {}", day_and_month(at), hour(at)),
        kind: event.kind.clone(),
        who: who.unwrap_or_else(|| "events".to_owned()),
        slug: address.filter(|_| has_page).map(|address| slug(&address)).unwrap_or_default(),
        text,
    }
}

struct Month {
    id: String,
    title: String,
    events: Vec<Event>,
}

#[derive(Template)]
#[template(path = "site/events.html")]
struct Page<'a> {
    f: Frame<'a>,
    events: Vec<Month>,
}

#[derive(Template)]
#[template(path = "site/feed.xml")]
struct Feed<'a> {
    title: &'a str,
    url: String,
    updated: String,
    events: &'a [Event],
}

/// Writes the page of events, and the feed if the website has an address.
pub fn write(context: &Context, directory: &mut Directory) -> Result<(), WriteError> {
    let events = &context.facts.events;
    let shown: Vec<Event> = events.iter().map(|event| shown(context, event)).collect();
    if context.site.has_feed {
        let newest = events.iter().map(|event| event.at).max();
        let url = &context.config.site.url;
        let feed = Feed {
            title: &context.site.title,
            url: if url.ends_with('/') { url.clone() } else { format!("{url}/") },
            // Without an event it never changes.
            updated: newest.map_or("1970-01-01T00:00:00Z".to_owned(), |at| at.to_text()),
            events: &shown,
        };
        directory.put("events/feed.atom", rendered(&feed).as_bytes())?;
    }
    let mut months: Vec<Month> = Vec::new();
    for (event, facts) in shown.into_iter().zip(events) {
        let at = facts.at.0.as_secs();
        let title = format!("{} {}", month(at), year(at));
        if months.last().is_none_or(|last| last.title != title) {
            let id = months.len().to_string();
            months.push(Month { id, title, events: Vec::new() });
        }
        if let Some(month) = months.last_mut() {
            month.events.push(event);
        }
    }
    let page = Page { f: context.frame("../", "Events"), events: months };
    directory.put("events/index.html", rendered(&page).as_bytes())
}
