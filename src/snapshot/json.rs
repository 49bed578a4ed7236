//! Snapshots of Bitnodes: an object whose `nodes` has the addresses as keys, or an array of rows.
//!
//! A node has 5 or 13 values: protocol version, user agent, time of connection, services, height,
//! and what belongs to its place. A row begins with address and port.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::input::{JsonGuard, JsonState};
use super::{Collector, Format};

/// Places of the user agent and the height among the values of a node.
const AGENT: usize = 1;
const HEIGHT: usize = 4;

pub(super) fn read(
    input: impl Read,
    line: &mut u64,
    collector: &mut Collector<'_>,
) -> io::Result<()> {
    let counter = Rc::new(Cell::new(*line));
    let input = JsonGuard { input, line: Rc::clone(&counter), state: JsonState::default() };
    let mut parser = serde_json::Deserializer::from_reader(input);
    collector.summary.format = Format::Bitnodes;
    let snapshot = Snapshot { line: &counter, collector };
    let result = parser.deserialize_any(snapshot).and_then(|()| parser.end());
    *line = counter.get();
    result.map_err(|error| {
        if error.is_io() {
            return error.into();
        }
        let text = error.to_string();
        // The line is told by the caller.
        io::Error::other(text.split(" at line ").next().unwrap_or(&text).to_owned())
    })
}

struct Snapshot<'a, 'e> {
    line: &'a Cell<u64>,
    collector: &'a mut Collector<'e>,
}

impl<'de> Visitor<'de> for Snapshot<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a snapshot of Bitnodes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_nodes = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "timestamp" => {
                    if let Some(at) = map.next_value_seed(Number)? {
                        self.collector.see(at);
                    }
                }
                "nodes" => {
                    has_nodes = true;
                    map.next_value_seed(Nodes { line: self.line, collector: self.collector })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let missing =
            || serde::de::Error::custom("it has no \"nodes\": not a snapshot of Bitnodes");
        has_nodes.then_some(()).ok_or_else(missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while let Some(row) = rows.next_element_seed(Row { has_address: true })? {
            row.hand_over(None, self.line, self.collector);
        }
        Ok(())
    }
}

/// The object with the addresses as keys.
struct Nodes<'a, 'e> {
    line: &'a Cell<u64>,
    collector: &'a mut Collector<'e>,
}

impl<'de> DeserializeSeed<'de> for Nodes<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Nodes<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with addresses as keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(address) = map.next_key::<String>()? {
            let row = map.next_value_seed(Row { has_address: false })?;
            row.hand_over(Some(&address), self.line, self.collector);
        }
        Ok(())
    }
}

/// The values of a node.
struct Row {
    has_address: bool,
}

#[derive(Default)]
struct Values {
    host: Option<String>,
    port: Option<i64>,
    agent: Option<String>,
    height: Option<i64>,
}

impl Values {
    fn hand_over(self, address: Option<&str>, line: &Cell<u64>, collector: &mut Collector<'_>) {
        let host = address.or(self.host.as_deref()).unwrap_or("");
        // As text, so that a port is read in one place.
        let port = self.port.map(|port| port.to_string());
        collector.take(line.get(), host, port.as_deref(), self.agent.as_deref(), self.height);
    }
}

impl<'de> DeserializeSeed<'de> for Row {
    type Value = Values;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Values, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of values for each node")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<Values, A::Error> {
        let mut values = Values::default();
        if self.has_address {
            values.host = row.next_element_seed(Text)?.flatten();
            values.port = row.next_element_seed(Number)?.flatten();
        }
        for index in 0.. {
            let has_value = match index {
                AGENT => row.next_element_seed(Text)?.map(|text| values.agent = text),
                HEIGHT => row.next_element_seed(Number)?.map(|number| values.height = number),
                _ => row.next_element::<IgnoredAny>()?.map(drop),
            };
            if has_value.is_none() {
                break;
            }
        }
        Ok(values)
    }
}

/// A text or null. Surrogates without their other half, which a peer may put there, are replaced.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_bytes(self)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
    }
}

/// A whole number or null; a fraction is cut off.
struct Number;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = Option<i64>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Number {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or null")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).ok())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Some(number as i64))
    }
}
